"""From two arms to changes of metrics, each with the interval that its runs or steps give."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import polars as pl

from nsysmoe.analysis.comparing.comparison import Change, Part
from nsysmoe.classes import COLLECTIVE
from nsysmoe.metrics.kernel_time.communication import communication_totals
from nsysmoe.metrics.kernel_time.durations import counted_statistics
from nsysmoe.metrics.kernel_time.phases import UNATTRIBUTED
from nsysmoe.metrics.kernel_time.schedule import SCHEDULE, resampled_values, schedule_values
from nsysmoe.metrics.kernel_time.steps import SUMS, undistorted
from nsysmoe.metrics.kernel_time.table1 import (
    METRICS,
    mean_value,
    metric_values,
    relative_change,
    verdict,
)
from nsysmoe.metrics.statistics import uncertainty

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from nsysmoe.analysis.reading.arm import Arm
    from nsysmoe.analysis.reading.run import Run
    from nsysmoe.metrics.kernel_time.table1 import Metric, Value
    from nsysmoe.metrics.statistics.interval import Interval

_ALL = METRICS + SCHEDULE
# Metrics that are sums over steps, so that leaving steps out leaves a metric.
_ADDITIVE = {
    "total_time_ns": "total_ns",
    "launches": "launches",
    "nccl_total_ns": "nccl_total_ns",
    "allreduce_total_ns": "allreduce_total_ns",
    "wall_time_ns": "wall_ns",
    "critical_moe_ns": "critical_ns",
    "excess_moe_ns": "excess_ns",
    "wait_ns": "wait_ns",
    "transfer_ns": "transfer_ns",
    "exposed_wait_ns": "exposed_wait_ns",
    "exposed_transfer_ns": "exposed_transfer_ns",
    "idle_ns": "idle_ns",
}


def judge(baseline: Arm, candidate: Arm, *, is_comparable: bool) -> tuple[Change, ...]:
    """Return every metric on both sides.

    The value of an arm of several runs is the mean over runs, and the interval is over runs.
    With one run an arm it is over steps, where there are steps, and says nothing about other
    runs.
    """
    tables = _tables((baseline, candidate))
    intervals = _step_intervals(tables, (baseline.values, candidate.values))
    unsure = _uncertainty((baseline, candidate))
    return _changes(_ALL, (baseline.values, candidate.values), intervals, is_comparable, unsure)


def judge_undistorted(baseline: Arm, candidate: Arm) -> tuple[Change, ...]:
    """Return the metrics that add up over steps, as if no step had been distorted.

    Empty where nothing is distorted, or steps are not known.
    """
    arms = (baseline, candidate)
    tables = _tables(arms, without_distorted=True)
    if tables is None or not any(is_distorted(run) for arm in arms for run in arm.runs):
        return ()
    values: list[list[dict[str, Value]]] = [
        [
            {
                # What the whole run does not know, its steps do not either.
                key: None if whole[key] is None else float(table[column].sum())
                for key, column in _ADDITIVE.items()
            }
            for whole, table in zip(arm.values, found, strict=True)
        ]
        for arm, found in zip(arms, tables, strict=True)
    ]
    metrics = [metric for metric in _ALL if metric.key in _ADDITIVE]
    intervals = _step_intervals(tables, values)
    return _changes(metrics, values, intervals, is_comparable=True, unsure=_uncertainty(arms))


def is_distorted(run: Run) -> bool:
    """Tell whether any step of a run is distorted."""
    return run.distorted_steps is not None and not run.distorted_steps.is_empty()


def judge_parts(baseline: Arm, candidate: Arm) -> tuple[Part, ...]:
    """Return every metric by phase and by rank, as ``judge`` does; empty without schedules.

    Steps of one run give no interval here: a phase may have a few.
    """
    arms = (baseline, candidate)
    runs = [run for arm in arms for run in arm.runs]
    known = [run.schedule for run in runs if run.schedule is not None]
    if len(known) < len(runs):
        return ()
    # Communication alone may stand outside any range: what is left has a part of its own.
    phases = {
        phase or UNATTRIBUTED
        for run in runs
        for frame in _parted(run)
        for phase in frame["phase"].unique()
    }
    ranks = _shared(schedule.launches["rank"] for schedule in known)
    return (
        *(Part("phase", phase, _phase_changes(arms, phase)) for phase in sorted(phases)),
        *(Part("rank", str(rank), _rank_changes(arms, rank)) for rank in ranks),
    )


def _phase_changes(arms: Sequence[Arm], phase: str) -> tuple[Change, ...]:
    """Return a phase's metrics, means over the runs that have it; one without it where none has."""
    condition = _is_phase(phase)
    having = [
        [run for run in arm.runs if _has_part(run, condition)] or [arm.representative]
        for arm in arms
    ]
    values = [[_phase_values(run, condition) for run in runs] for runs in having]
    unsure = [[run.clock_uncertainty(condition) for run in runs] for runs in having]
    return _part_changes(values, unsure)


def _has_part(run: Run, condition: pl.Expr) -> bool:
    return any(not frame.filter(condition).is_empty() for frame in _parted(run))


def _parted(run: Run) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Return what parts are made of: MoE launches, communication, the time of GPUs."""
    schedule, device_time = run.schedule, run.joint_device_time
    assert schedule is not None  # noqa: S101 - judge_parts asks
    assert device_time is not None  # noqa: S101 - as above
    return schedule.launches, schedule.collectives, device_time


def _rank_changes(arms: Sequence[Arm], rank: int) -> tuple[Change, ...]:
    values, unsure = [], []
    for arm in arms:
        ranked = [(run, _is_rank(run, rank)) for run in arm.runs]
        values.append([_rank_values(run, rank, place) for run, place in ranked])
        unsure.append([run.clock_uncertainty(place, devices=1) for run, place in ranked])
    return _part_changes(values, unsure)


def _part_changes(
    values: Sequence[Sequence[dict[str, Value]]], unsure: Sequence[Sequence[dict[str, float]]]
) -> tuple[Change, ...]:
    added = _added([_mean_uncertainty(told) for told in unsure])
    return _changes(_ALL, values, {}, is_comparable=True, unsure=added)


def _uncertainty(arms: Sequence[Arm]) -> dict[str, float]:
    """Return how far changes may be off by clocks, ns by metric; an offset is no run's alone."""
    return _added(
        [_mean_uncertainty([run.clock_uncertainty() for run in arm.runs]) for arm in arms]
    )


def _mean_uncertainty(told: Sequence[dict[str, float]]) -> dict[str, float]:
    keys = {key for one in told for key in one}
    return {key: sum(one.get(key, 0.0) for one in told) / len(told) for key in keys}


def _added(told: Sequence[dict[str, float]]) -> dict[str, float]:
    keys = {key for one in told for key in one}
    return {key: sum(one.get(key, 0.0) for one in told) for key in keys}


def _changes(
    metrics: Sequence[Metric],
    values: Sequence[Sequence[dict[str, Value]]],
    by_steps: dict[str, Interval | None],
    is_comparable: bool,
    unsure: dict[str, float],
) -> tuple[Change, ...]:
    return tuple(
        _change(
            metric,
            [run[metric.key] for run in values[0]],
            [run[metric.key] for run in values[1]],
            by_steps.get(metric.key),
            is_comparable,
            unsure.get(metric.key),
        )
        for metric in metrics
    )


def _change(  # noqa: PLR0913, PLR0917 - what one change is judged by
    metric: Metric,
    before: list[Value],
    after: list[Value],
    over_steps: Interval | None,
    is_comparable: bool,
    unsure: float | None,
) -> Change:
    first, second = mean_value(before), mean_value(after)
    known = [value for value in (*before, *after) if value is not None]
    is_complete = len(known) == len(before) + len(after)
    over_runs = uncertainty.interval_over_runs(before, after) if is_complete else None  # type: ignore[arg-type]
    change = Change(
        metric.group,
        metric.key,
        first,
        second,
        relative_change(first, second),
        verdict(first, second),
        over_runs or over_steps,
        unsure,
        tuple(before),
        tuple(after),
    )
    return replace(change, verdict=_judged(change, is_comparable=is_comparable))


def _judged(change: Change, *, is_comparable: bool) -> str | None:
    if change.verdict and not is_comparable:
        return "not_comparable"
    is_noise = change.interval is not None and not change.interval.excludes_zero()
    if change.verdict in {"better", "worse"} and (is_noise or change.is_within_clocks):
        return "within_noise"
    return change.verdict


def _tables(
    arms: Sequence[Arm], *, without_distorted: bool = False
) -> tuple[list[pl.DataFrame], ...] | None:
    """Return the step tables of every run, arm by arm; None where a run has none.

    Without distorted steps, each stands for an undistorted one of its stratum: dropped from one
    arm alone, a prefill would be missing there. Strata that some run knows distorted only are
    left out of all.
    """
    found: list[list[pl.DataFrame]] = []
    lost: set[str] = set()
    for arm in arms:
        found.append([])
        for run in arm.runs:
            if (table := run.step_table) is None:
                return None
            if without_distorted and run.distorted_steps is not None:
                table, without = undistorted(table, run.distorted_steps)
                lost |= without
            found[-1].append(table)
    kept = ~pl.col("stratum").is_in(sorted(lost))
    return tuple([table.filter(kept) for table in tables] for tables in found)


def _step_intervals(
    tables: Sequence[Sequence[pl.DataFrame]] | None,
    values: Sequence[Sequence[dict[str, Value]]],
) -> dict[str, Interval | None]:
    """Return intervals over steps by metric; none where an arm has several runs or no steps."""
    if tables is None or any(len(found) != 1 for found in tables):
        return {}
    steps = [_steps(found[0]) for found in tables]
    if any(not step.strata for step in steps):
        return {}
    before, after = (resampled_values(uncertainty.resampled(step)) for step in steps)
    counts = [len(step.strata) for step in steps]
    found: dict[str, Interval | None] = {}
    for key, drawn in before.items():
        change = relative_change(values[0][0].get(key), values[1][0].get(key))
        if change is not None:
            found[key] = uncertainty.interval_of(
                drawn, after[key], change, baseline_n=counts[0], candidate_n=counts[1]
            )
    return found


def _steps(table: pl.DataFrame) -> uncertainty.Steps:
    def column(name: str) -> NDArray[Any]:
        values: NDArray[Any] = table[name].cast(pl.Float64).to_numpy()
        return values

    return uncertainty.Steps(
        tuple(table["stratum"]),
        sums={name: column(name) for name in SUMS},
    )


def _shared(columns: Iterable[pl.Series]) -> list[Any]:
    """Return the values that all columns hold, sorted."""
    return sorted(set.intersection(*(set(column.unique()) for column in columns)))


def _is_phase(phase: str) -> pl.Expr:
    return pl.col("phase").fill_null(UNATTRIBUTED) == phase


def _is_rank(run: Run, rank: int) -> pl.Expr:
    assert run.schedule is not None  # noqa: S101 - judge_parts asks
    device = run.schedule.launches.filter(pl.col("rank") == rank).row(0, named=True)
    condition: pl.Expr = pl.col("global_pid").eq_missing(device["global_pid"]) & (
        pl.col("device_id") == device["device_id"]
    )
    return condition


def _phase_values(run: Run, condition: pl.Expr) -> dict[str, Value]:
    """Return every metric of the events of a phase."""
    assert run.schedule is not None  # noqa: S101 - judge_parts asks
    durations = counted_statistics(run.schedule.durations.filter(condition))
    return _part_values(run, condition, durations, run.paired_cells.filter(condition))


def _rank_values(run: Run, rank: int, condition: pl.Expr) -> dict[str, Value]:
    """Return every metric of the events of a rank, which alone has no cells."""
    assert run.schedule is not None  # noqa: S101 - judge_parts asks
    durations = run.schedule.ranked.filter(pl.col("rank") == rank)
    return _part_values(run, condition, durations, run.paired_cells.clear())


def _part_values(
    run: Run, condition: pl.Expr, durations: pl.DataFrame, cells: pl.DataFrame
) -> dict[str, Value]:
    launches, collectives, device_time = (frame.filter(condition) for frame in _parted(run))
    totals = collectives.group_by("name_id").agg(pl.col("dur_ns").sum().alias("total_ns"))
    named = run.kernels.filter(pl.col("class") == COLLECTIVE).drop("launches", "total_ns")
    communication = communication_totals(totals.join(named, on="name_id"))
    return {
        **metric_values(durations, communication),
        **schedule_values(launches, cells, collectives, device_time),
    }
