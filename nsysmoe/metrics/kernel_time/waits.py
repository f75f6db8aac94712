"""Why ranks waited: sums of the wait ledger, by cause."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from nsysmoe.metrics.kernel_time.clock_error import wait_uncertainty
from nsysmoe.metrics.kernel_time.phases import UNATTRIBUTED

if TYPE_CHECKING:
    from collections.abc import Sequence

_UNSURE = "wait_uncertainty_ns"
CAUSES = ("moe", "other_kernels", "host", "other_gap", "previous_end", "residual")


def waits_by_cause(
    ledger: pl.DataFrame, by: Sequence[str] = (), across: pl.DataFrame | None = None
) -> pl.DataFrame:
    """Sum waiting and its causes, overall or by some columns.

    Each cause is a difference, last rank less waiting rank: it is negative where the last rank
    had less of it, and all of them add up to the waiting.

    Args:
        ledger: View ``wait_ledger`` as ``with_phase`` returned it, or view ``wait_causes``, and
            the columns of ``by``.
        by: Columns to group by; one row comes back where it is empty.
        across: What ``clock_error.waits_across_clocks`` returned, of the same waits and with the
            columns of ``by``; None for a run on one clock.

    Returns:
        ``by``, ``collectives`` (waits counted), ``wait_ns``, with ``across`` how far that may be
        off by clocks (``wait_uncertainty_ns``), and the ns of each of ``CAUSES`` under its own
        name; the largest waiting first.
    """
    measures = [
        pl.col("collectives", "wait_ns").sum(),
        *(pl.col(f"{cause}_ns").sum().alias(cause) for cause in CAUSES),
    ]
    if not by:
        return _with_uncertainty(ledger.select(measures), by, across)
    sums = (
        ledger.group_by(by)
        .agg(measures)
        .sort("wait_ns", *by, descending=[True, *[False] * len(by)])
    )
    return _with_uncertainty(sums, by, across)


def _with_uncertainty(
    sums: pl.DataFrame, by: Sequence[str], across: pl.DataFrame | None
) -> pl.DataFrame:
    """Add ``wait_uncertainty_ns`` behind the waiting; the sums as they are for one clock."""
    if across is None:
        return sums
    unsure = wait_uncertainty(across, by)
    if not by:
        added = sums.with_columns(pl.lit(unsure["wait_uncertainty_ns"].sum()).alias(_UNSURE))
    else:
        added = sums.join(
            unsure, on=list(by), how="left", nulls_equal=True, maintain_order="left"
        ).with_columns(pl.col(_UNSURE).fill_null(0))
    place = sums.columns.index("wait_ns") + 1
    return added.select(*sums.columns[:place], _UNSURE, *sums.columns[place:])


def waits_with_phases(ledger: pl.DataFrame, across: pl.DataFrame | None = None) -> dict[str, Any]:
    """Return the one row of ``waits_by_cause``, with the same by phase under ``phases``.

    Args:
        ledger: As ``waits_by_cause`` takes it, with ``phase``.
        across: As ``waits_by_cause`` takes it, with ``phase``.
    """
    rows = waits_by_cause(ledger, ["phase"], across).to_dicts()
    phases = {row.pop("phase"): row for row in rows}
    return {**waits_by_cause(ledger, (), across).row(0, named=True), "phases": phases}


def with_phase(ledger: pl.DataFrame, steps: pl.DataFrame) -> pl.DataFrame:
    """Add the ``phase`` of the step that launched each waiting collective; it counts as one.

    Args:
        ledger: View ``wait_ledger``.
        steps: View ``collective_steps``.
    """
    known = with_known_phase(ledger.join(steps, on="kernel_id", how="left"))
    return known.with_columns(pl.lit(1, pl.Int64).alias("collectives"))


def with_known_phase(waits: pl.DataFrame) -> pl.DataFrame:
    """Call ``unattributed`` what has no ``phase``."""
    return waits.with_columns(pl.col("phase").fill_null(UNATTRIBUTED))


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
