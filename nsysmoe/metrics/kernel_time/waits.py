"""Why ranks waited: sums of the wait ledger, by cause."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from nsysmoe.metrics.kernel_time.phases import UNATTRIBUTED

if TYPE_CHECKING:
    from collections.abc import Sequence

CAUSES = ("moe", "other_kernels", "host", "other_gap", "previous_end", "residual")


def waits_by_cause(ledger: pl.DataFrame, by: Sequence[str] = ()) -> pl.DataFrame:
    """Sum waiting and its causes, overall or by some columns.

    Each cause is a difference, last rank less waiting rank: it is negative where the last rank
    had less of it, and all of them add up to the waiting.

    Args:
        ledger: View ``wait_ledger`` as ``with_phase`` returned it, or view ``wait_causes``, and
            the columns of ``by``.
        by: Columns to group by; one row comes back where it is empty.

    Returns:
        ``by``, ``collectives`` (waits counted), ``wait_ns``, and the ns of each of ``CAUSES``
        under its own name; the largest waiting first.
    """
    measures = [
        pl.col("collectives", "wait_ns").sum(),
        *(pl.col(f"{cause}_ns").sum().alias(cause) for cause in CAUSES),
    ]
    if not by:
        return ledger.select(measures)
    return (
        ledger.group_by(by)
        .agg(measures)
        .sort("wait_ns", *by, descending=[True, *[False] * len(by)])
    )


def waits_with_phases(ledger: pl.DataFrame) -> dict[str, Any]:
    """Return the one row of ``waits_by_cause``, with the same by phase under ``phases``.

    Args:
        ledger: What ``with_phase`` returned, or view ``wait_causes``.
    """
    known = ledger.with_columns(pl.col("phase").fill_null(UNATTRIBUTED))
    rows = waits_by_cause(known, ["phase"]).to_dicts()
    phases = {row.pop("phase"): row for row in rows}
    return {**waits_by_cause(known).row(0, named=True), "phases": phases}


def with_phase(ledger: pl.DataFrame, steps: pl.DataFrame) -> pl.DataFrame:
    """Add the ``phase`` of the step that launched each waiting collective; it counts as one.

    Args:
        ledger: View ``wait_ledger``.
        steps: View ``collective_steps``.
    """
    return ledger.join(steps, on="kernel_id", how="left").with_columns(
        pl.col("phase").fill_null(UNATTRIBUTED), pl.lit(1, pl.Int64).alias("collectives")
    )


def with_layer(ledger: pl.DataFrame, launches: pl.DataFrame) -> pl.DataFrame:
    """Add the ``layer`` of the last MoE kernel before each waiting collective on its device.

    Args:
        ledger: View ``wait_ledger``.
        launches: MoE launches; ``global_pid``, ``device_id``, ``layer``, ``start_ns``.

    Returns:
        The ledger with ``layer``, null before the first MoE kernel and where layers are not known.
    """
    device = ["global_pid", "device_id"]
    here = [pl.col(name).fill_null(-1).alias(f"_{name}") for name in device]
    return (
        ledger.with_columns(here)
        .sort("start_ns")
        .join_asof(
            launches.with_columns(here)
            .select(*(f"_{n}" for n in device), "layer", "start_ns")
            .sort("start_ns"),
            on="start_ns",
            by=[f"_{name}" for name in device],
            strategy="backward",
            # Both are sorted; polars cannot check it beside ``by``, and warns.
            check_sortedness=False,
        )
        .drop(f"_{name}" for name in device)
    )
