"""The metrics of the paper's Table 1, in its order, and those that stand beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    import polars as pl

Group = Literal["moe_kernel", "communication", "schedule"]
Verdict = Literal["better", "worse", "same", "within_noise", "not_comparable"]
Value = int | float | None


@dataclass(frozen=True)
class Metric:
    """One row: its key in JSON, its group, and the unit that a table shows it in."""

    key: str
    group: Group
    label: str
    unit: Literal["ms", "us", "times", "plain", "count"]


BASELINE_LABEL = "EPLB OFF"
CANDIDATE_LABEL = "EPLB ON"
TABLE_1 = (
    Metric("total_time_ns", "moe_kernel", "Total Time", "ms"),
    Metric("mean_ns", "moe_kernel", "Avg Duration", "us"),
    Metric("max_ns", "moe_kernel", "Max Duration", "us"),
    Metric("stddev_ns", "moe_kernel", "StdDev", "us"),
    Metric("cv", "moe_kernel", "CV (σ/μ)", "plain"),
    Metric("max_min_ratio", "moe_kernel", "Max/Min Ratio", "times"),
    Metric("nccl_total_ns", "communication", "NCCL Total Time", "ms"),
    Metric("allreduce_total_ns", "communication", "AllReduce Total Time", "ms"),
)
BESIDE = (
    Metric("launches", "moe_kernel", "Launches", "count"),
    Metric("min_ns", "moe_kernel", "Min Duration", "us"),
    Metric("median_ns", "moe_kernel", "Median Duration", "us"),
    Metric("p95_ns", "moe_kernel", "p95 Duration", "us"),
    Metric("p99_ns", "moe_kernel", "p99 Duration", "us"),
    Metric("other_allreduce_total_ns", "communication", "AllReduce outside NCCL", "ms"),
)
METRICS = TABLE_1 + BESIDE


def metric_values(durations: pl.DataFrame, communication: pl.DataFrame) -> dict[str, Value]:
    """Return the value of every metric by key.

    Args:
        durations: One row of ``counted_statistics`` or ``pooled_statistics``.
        communication: One row of ``communication_totals``.
    """
    found = {**durations.row(0, named=True), **communication.row(0, named=True)}
    found["total_time_ns"] = found["total_ns"]
    return {metric.key: found[metric.key] for metric in METRICS}


def mean_value(values: Sequence[Value]) -> Value:
    """Return the mean over runs, of one run its own value; None where a run's is not known."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return None
    return known[0] if len(known) == 1 else sum(known) / len(known)


def relative_change(baseline: Value, candidate: Value) -> float | None:
    """Return candidate / baseline - 1; None where the baseline is 0 or one of them is unknown."""
    if baseline is None or candidate is None or baseline == 0:
        return None
    return candidate / baseline - 1


def verdict(baseline: Value, candidate: Value) -> Verdict | None:
    """Judge a change; lower is better in every metric, None where one of them is unknown.

    ``same`` is a change that rounds to 0.0 %.
    """
    if baseline is None or candidate is None:
        return None
    change = relative_change(baseline, candidate)
    rounded = candidate - baseline if change is None else round(change * 100, 1)
    if rounded == 0:
        return "same"
    return "worse" if rounded > 0 else "better"
