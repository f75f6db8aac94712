"""What bounds a phase: where the wall time of each GPU went, by cause."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from nsysmoe.metrics.kernel_time.causes import BOUNDS, TIME_CAUSES
from nsysmoe.metrics.kernel_time.phases import UNATTRIBUTED

if TYPE_CHECKING:
    from collections.abc import Sequence

_WAITS = ("moe", "other_kernels", "host", "other_gap", "unexplained")
_LEFT = pl.col("exposed_wait_ns") - pl.sum_horizontal(f"wait_{name}" for name in _WAITS[:-1])
# Shares are floats: what is left of a whole by less is nothing.
_ROUNDING = 1e-13
_DEVICE = ["global_pid", "process_id", "device_id"]
_GROUP = [*_DEVICE, "phase"]


def time_causes(
    device_time: pl.DataFrame, gaps: pl.DataFrame, ledger: pl.DataFrame
) -> pl.DataFrame:
    """Split each GPU's window, phase by phase, by what the time went into.

    Idle time is split by what the launching thread did meanwhile, exposed waiting by what made
    the last rank late (in proportion to the ledger's positive sums of that GPU and phase).

    Args:
        device_time: View ``device_time``.
        gaps: View ``idle_gaps``, or ``idle_causes``.
        ledger: View ``wait_causes``, or ``wait_ledger`` with ``phase``.

    Returns:
        ``global_pid``, ``process_id``, ``device_id``, ``phase``, ``window_ns``, and the ns of each
        of ``TIME_CAUSES``, which add up to ``window_ns``.
    """
    phase = pl.col("phase").fill_null(UNATTRIBUTED)
    spent = (
        device_time.with_columns(phase)
        .group_by(_GROUP)
        .agg(
            pl.col("window_ns").sum(),
            pl.col("moe_ns").sum().alias("moe"),
            (pl.col("compute_ns") - pl.col("moe_ns")).sum().alias("other_compute"),
            pl.col("exposed_copy_ns").sum().alias("copy"),
            pl.col("exposed_transfer_ns").sum().alias("transfer"),
            pl.col("exposed_unmatched_ns").sum().alias("unmatched"),
            pl.col("exposed_wait_ns").sum(),
        )
    )
    idle = (
        gaps.with_columns(phase)
        .group_by(_GROUP)
        .agg(
            (pl.col("calling_ns") + pl.col("outside_ns")).sum().alias("host"),
            pl.col("blocked_ns").sum().alias("sync"),
            pl.col("launched_ns").sum().alias("latency"),
            pl.col("unknown_ns").sum().alias("unknown_launch"),
        )
    )
    return (
        spent.join(idle, on=_GROUP, how="left", nulls_equal=True)
        .join(_wait_shares(ledger), on=_GROUP, how="left", nulls_equal=True)
        .with_columns(pl.col("host", "sync", "latency", "unknown_launch").fill_null(0))
        .with_columns(
            pl.col(f"wait_{name}").fill_null(0) * pl.col("exposed_wait_ns") for name in _WAITS
        )
        # What the shares leave, not their own rounding.
        .with_columns(wait_unexplained=_beyond_rounding(_LEFT, pl.col("exposed_wait_ns")))
        .select(*_GROUP, "window_ns", *(pl.col(cause).cast(pl.Float64) for cause in TIME_CAUSES))
        .sort("phase", "device_id", "global_pid")
    )


def bounds(causes: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
    """Return what bounds each group: shares of its wall time.

    Args:
        causes: What ``time_causes`` returned.
        by: Columns to group by.

    Returns:
        ``by``, ``window_ns`` (of all its GPUs), the ns of each of ``TIME_CAUSES`` (``moe_ns``, …),
        the share of each of ``BOUNDS`` (0 to 1, adding up to 1), ``bound`` (the largest),
        ``balance_ratio`` (the part of ``moe`` that is waiting
        for a rank whose MoE kernels took longer: what perfect balance could shorten at most),
        the longest window first.
    """
    whole = pl.col("window_ns")
    summed = causes.group_by(by).agg(pl.col("window_ns", *TIME_CAUSES).sum()).filter(whole > 0)
    shares = summed.select(
        *by,
        "window_ns",
        *(pl.col(cause).alias(f"{cause}_ns") for cause in TIME_CAUSES),
        *((pl.sum_horizontal(parts) / whole).alias(name) for name, parts in BOUNDS.items()),
        (pl.col("wait_moe") / whole).alias("balance_ratio"),
    )
    largest = pl.concat_list(*BOUNDS).list.arg_max()
    return shares.with_columns(
        bound=largest.replace_strict(dict(enumerate(BOUNDS)), return_dtype=pl.String)
    ).sort("window_ns", *by, descending=[True, *[False] * len(by)])


def longest_window(causes: pl.DataFrame) -> dict[str, float]:
    """Return where the wall time went: the causes of the GPU whose window is longest.

    Args:
        causes: What ``time_causes`` returned.

    Returns:
        ns of each of ``TIME_CAUSES``, adding up to the wall time; zeros where there is none.
    """
    first = _longest(causes)
    return first.row(0, named=True) if first.height else dict.fromkeys(TIME_CAUSES, 0.0)


def is_longest(causes: pl.DataFrame) -> pl.Expr:
    """Return what rows of the GPU meet that ``longest_window`` tells of.

    Args:
        causes: What ``time_causes`` returned.
    """
    device = _longest(causes, _DEVICE).row(0, named=True)
    return pl.all_horizontal(
        pl.col(name).eq_missing(device[name]) for name in ("global_pid", "device_id")
    )


def _longest(causes: pl.DataFrame, columns: Sequence[str] = TIME_CAUSES) -> pl.DataFrame:
    by_device = causes.group_by(_DEVICE).agg(pl.col("window_ns", *TIME_CAUSES).sum())
    order = by_device.sort("window_ns", "device_id", "global_pid", descending=[True, False, False])
    return order.select(columns).head(1)


def _beyond_rounding(ns: pl.Expr, whole_ns: pl.Expr) -> pl.Expr:
    return pl.when(ns.abs() > _ROUNDING * whole_ns).then(ns).otherwise(0.0)


def _wait_shares(ledger: pl.DataFrame) -> pl.DataFrame:
    """Return the share of each cause in the waiting of a GPU and phase, what it shortened as 0."""
    unexplained = pl.col("previous_end_ns") + pl.col("residual_ns")
    summed = (
        ledger.with_columns(pl.col("phase").fill_null(UNATTRIBUTED), unexplained_ns=unexplained)
        .group_by(_GROUP)
        .agg(pl.col(f"{name}_ns").sum().clip(lower_bound=0) for name in _WAITS)
    )
    total = pl.sum_horizontal(f"{name}_ns" for name in _WAITS)
    return summed.filter(total > 0).select(
        *_GROUP, *((pl.col(f"{name}_ns") / total).alias(f"wait_{name}") for name in _WAITS)
    )
