"""The metrics that Table 1 lacks: what ranks waited for, and where wall time went."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from nsysmoe.metrics.kernel_time.table1 import Metric, Value
from nsysmoe.metrics.statistics.ordered_sum import column_sum

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

SCHEDULE = (
    Metric("wall_time_ns", "schedule", "Wall Time", "ms"),
    Metric("critical_moe_ns", "schedule", "Critical MoE Time", "ms"),
    Metric("excess_moe_ns", "schedule", "Excess over Balance", "ms"),
    Metric("busiest_rank_ns", "schedule", "Busiest Rank's MoE Time", "ms"),
    Metric("wait_ns", "schedule", "Waiting in Collectives, all GPUs", "ms"),
    Metric("transfer_ns", "schedule", "Transfer, all GPUs", "ms"),
    Metric("exposed_wait_ns", "schedule", "Exposed Waiting a GPU", "ms"),
    Metric("exposed_transfer_ns", "schedule", "Exposed Transfer a GPU", "ms"),
    Metric("idle_ns", "schedule", "GPU Idle", "ms"),
)
_MEAN_OF_DEVICES = ("exposed_wait_ns", "exposed_transfer_ns", "idle_ns")
_DEVICE = ["global_pid", "device_id"]


def schedule_values(
    launches: pl.DataFrame,
    cells: pl.DataFrame,
    collectives: pl.DataFrame,
    device_time: pl.DataFrame | None,
) -> dict[str, Value]:
    """Return the metrics of ``SCHEDULE`` by key.

    Args:
        launches: MoE launches; ``global_pid``, ``device_id``, ``dur_ns``.
        cells: Cells over two ranks or more; ``slowest_ns``, ``mean_ns``.
        collectives: Communication kernels; ``is_matched``, ``wait_ns``, ``transfer_ns``.
        device_time: View ``device_time``; None where it was not asked for.

    Returns:
        Times in ns. Wall time is the longest window of any device; exposed times and idle are
        means over devices; what nothing could be paired for is None.
    """
    spent: dict[str, Value] = dict.fromkeys(("wall_time_ns", *_MEAN_OF_DEVICES))
    if device_time is not None:
        by_device = device_time.group_by(_DEVICE).agg(pl.col("window_ns", *_MEAN_OF_DEVICES).sum())
        spent = {name: _mean(by_device[name]) for name in _MEAN_OF_DEVICES}
        spent["wall_time_ns"] = _largest(by_device["window_ns"])
    matched = collectives.filter("is_matched")
    ranks = launches.group_by(_DEVICE).agg(pl.col("dur_ns").sum())["dur_ns"]
    critical = int(cells["slowest_ns"].sum()) if cells.height else None
    return {
        "critical_moe_ns": critical,
        "excess_moe_ns": None if critical is None else critical - column_sum(cells, "mean_ns"),
        "busiest_rank_ns": _largest(ranks),
        "wait_ns": int(matched["wait_ns"].sum()) if matched.height else None,
        "transfer_ns": int(matched["transfer_ns"].sum()) if matched.height else None,
        **spent,
    }


def resampled_values(totals: dict[str, Floats]) -> dict[str, Floats]:
    """Return metrics by key from resampled totals over steps (``steps.step_table``).

    Args:
        totals: Shape (resamples,) each: ``steps.SUMS``.

    Returns:
        Table 1's metrics and those of ``SCHEDULE`` that sums over steps give; the deviation is
        the sample's, s² = (Σd² - (Σd)²/n) / (n - 1). Extremes are not among them: the bootstrap
        is inconsistent for a maximum (Bickel & Freedman 1981).
    """
    launches, total = totals["launches"], totals["total_ns"]
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = total / launches
        variance = (totals["squares"] - total * mean) / (launches - 1)
        stddev = np.sqrt(np.maximum(variance, 0.0))
        return {
            "total_time_ns": total,
            "mean_ns": mean,
            "stddev_ns": stddev,
            "cv": stddev / mean,
            "launches": launches,
            "nccl_total_ns": totals["nccl_total_ns"],
            "allreduce_total_ns": totals["allreduce_total_ns"],
            "wall_time_ns": totals["wall_ns"],
            "critical_moe_ns": totals["critical_ns"],
            "excess_moe_ns": totals["excess_ns"],
            "wait_ns": totals["wait_ns"],
            "transfer_ns": totals["transfer_ns"],
            **{name: totals[name] for name in _MEAN_OF_DEVICES},
        }


def _largest(values: pl.Series) -> int | None:
    return None if values.is_empty() else int(values.max())  # type: ignore[arg-type]


def _mean(values: pl.Series) -> float | None:
    return None if values.is_empty() else float(values.mean())  # type: ignore[arg-type]
