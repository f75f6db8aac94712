"""Table 1: two arms, change and verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from nsysmoe.metrics.kernel_time.schedule import SCHEDULE
from nsysmoe.metrics.kernel_time.table1 import BESIDE, TABLE_1
from nsysmoe.reports import numbers
from nsysmoe.reports.document import Column, Document, Picture, Row, Table
from nsysmoe.reports.pages.comparing.runs import (
    LATENCIES,
    run_records,
    runs_pictures,
    runs_table,
)
from nsysmoe.reports.pages.one_trace.bound import causes_table
from nsysmoe.reports.pictures import time_by_kernel

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nsysmoe.analysis.comparing.comparison import Breakdown, Change, Comparison
    from nsysmoe.metrics.kernel_time.table1 import Metric, Value
    from nsysmoe.metrics.statistics.interval import Interval

GROUP_TITLES = {
    "moe_kernel": "MoE Kernel Performance",
    "communication": "Communication Overhead",
    "schedule": "Time and Balance",
}
By = Literal["phase", "rank", "run"]
_FORMATTERS: dict[str, Callable[[Value], str]] = {
    "ms": numbers.milliseconds,
    "us": numbers.microseconds,
    "times": numbers.times,
    "plain": numbers.decimal,
    "count": numbers.count,
}


def comparison_page(
    comparison: Comparison, *, full: bool = False, by: By | None = None
) -> Document:
    """Return the verdict, Table 1 and what it hides.

    Args:
        comparison: What to show.
        full: Whether to add the metrics beside Table 1 and the time by kernel and device.
        by: Whether to add Table 1 for each phase or rank, or a row for each run.
    """
    baseline, candidate = comparison.baseline, comparison.candidate
    tables = [
        metrics_table(comparison, TABLE_1, "Table 1: "),
        *hidden_tables(comparison),
        *cause_tables(comparison),
        *latency_tables(comparison),
        *_part_tables(comparison, by),
    ]
    if full:
        tables += [
            metrics_table(comparison, BESIDE, "Beside Table 1: "),
            *(
                breakdown_table(side.breakdown, f"Where the time of {side.label} went")
                for side in (baseline, candidate)
            ),
        ]
    return Document(
        title=f"{baseline.label} against {candidate.label}",
        lead=tuple(part.sentence for part in comparison.verdict),
        tables=tuple(tables),
        data=comparison.to_dict(),
        records=records(comparison, by),
        findings=comparison.findings,
        notes=(counted_note(comparison),),
        pictures=(
            Picture(
                "Kernel time by function, both arms",
                lambda: time_by_kernel(
                    [(side.label, side.breakdown) for side in (baseline, candidate)]
                ),
            ),
            *runs_pictures(comparison),
        ),
    )


def metric_label(metric: Metric, moe_name: str) -> str:
    """Return the title of a metric's row, with the unit that ``metric_text`` writes."""
    subject = f"{moe_name} " if metric.group == "moe_kernel" else ""
    unit = f" ({metric.unit})" if metric.unit in {"ms", "us"} else ""
    return f"{subject}{metric.label}{unit}"


def metric_text(metric: Metric, value: Value) -> str:
    """Return a metric's value in the unit of its title."""
    return _FORMATTERS[metric.unit](value)


def moe_name(functions: Sequence[str]) -> str:
    """Return how rows call the MoE kernel: the paper's name where it is that kernel."""
    return "fused_moe" if set(functions) == {"fused_moe_kernel"} else "MoE"


def breakdown_table(rows: Sequence[Breakdown], caption: str) -> Table:
    """Return time by kernel function and device."""
    columns = (
        Column("Kernel", "left"),
        Column("Process"),
        Column("Device"),
        Column("Launches"),
        Column("Total (ms)"),
    )
    return Table(
        caption,
        columns,
        tuple(
            Row(
                (
                    row.kernel,
                    f"{row.host}: {row.process}"
                    if row.host is not None
                    else numbers.as_is(row.process),
                    numbers.as_is(row.device),
                    numbers.count(row.launches),
                    numbers.milliseconds(row.total_ns),
                ),
                GROUP_TITLES[row.group],
            )
            for row in rows
        ),
    )


def metrics_table(comparison: Comparison, metrics: Sequence[Metric], what: str) -> Table:
    """Return these metrics of both arms, the change, its verdict, and its interval if known."""
    caption = f"{what}{comparison.baseline.label} against {comparison.candidate.label}"
    return _changes_table(comparison, comparison.metrics, metrics, caption)


def hidden_tables(comparison: Comparison) -> list[Table]:
    """Return what Table 1 hides, and the same without distorted steps; none where unknown."""
    known = {change.metric for change in comparison.metrics if change.baseline is not None}
    tables = []
    if any(metric.key in known for metric in SCHEDULE):
        tables.append(metrics_table(comparison, SCHEDULE, "What Table 1 hides: "))
    if comparison.undistorted:
        count = len(comparison.distorted_steps)
        tables.append(
            _changes_table(
                comparison,
                comparison.undistorted,
                [*TABLE_1, *SCHEDULE],
                f"As if the {count} distorted step{'s' if count > 1 else ''} had been usual ones",
            )
        )
    return tables


def cause_tables(comparison: Comparison) -> list[Table]:
    """Return what the change of wall time is made of; none where it is not known."""
    if not comparison.causes:
        return []
    labels = comparison.baseline.label, comparison.candidate.label
    return [causes_table(comparison.causes, *labels)]


def latency_tables(comparison: Comparison) -> list[Table]:
    """Return what users saw, with and without the profiler; none where no record tells."""
    if not comparison.latency:
        return []
    labels = comparison.baseline.label, comparison.candidate.label
    columns = [Column("Metric", "left")]
    has_intervals = any(
        row.get(f"interval{which}") for row in comparison.latency for which in ("", "_unprofiled")
    )
    for which in ("", ", not profiled"):
        columns += [Column(f"{label}{which}") for label in labels]
        columns.append(Column(f"Change{which}"))
        columns += [Column(f"95% interval{which}")] if has_intervals else []
    rows = [_latency_row(row, has_intervals=has_intervals) for row in comparison.latency]
    runs = comparison.latency[0]
    caption = (
        f"What users saw: {labels[0]} against {labels[1]}, means over "
        f"{runs['baseline_runs']} and {runs['candidate_runs']} runs"
    )
    return [Table(caption, tuple(columns), tuple(rows))]


def _latency_row(row: dict[str, Any], *, has_intervals: bool) -> Row:
    title, scale = LATENCIES.get(row["metric"], (row["metric"], 1.0))
    cells = [title]
    for which in ("", "_unprofiled"):
        for side in ("baseline", "candidate"):
            value = row[f"{side}{which}"]
            cells.append(numbers.decimal(None if value is None else value * scale))
        cells.append(numbers.change(row[f"change{which}"]))
        if has_intervals:
            cells.append(_latency_interval(row.get(f"interval{which}")))
    return Row(tuple(cells))


def records(comparison: Comparison, by: str | None = None) -> tuple[dict[str, Any], ...]:
    """Return what CSV holds: a flat row for each metric, and for each part, or for each run."""
    if by == "run":
        return run_records(comparison)
    whole = _records(comparison.metrics)
    if by is None:
        return whole
    return tuple({by: "all", **row} for row in whole) + tuple(
        {by: part.key, **row}
        for part in comparison.parts
        if part.kind == by
        for row in _records(part.metrics)
    )


def _records(changes: Sequence[Change]) -> tuple[dict[str, Any], ...]:
    return tuple(
        {
            "group": change.group,
            "metric": change.metric,
            "baseline": change.baseline,
            "candidate": change.candidate,
            "change": change.change,
            "verdict": change.verdict,
            "interval_low": change.interval.low if change.interval else None,
            "interval_high": change.interval.high if change.interval else None,
        }
        for change in changes
    )


def _part_tables(comparison: Comparison, by: str | None) -> list[Table]:
    if by == "run":
        return [runs_table(comparison)]
    return [
        _changes_table(
            comparison,
            part.metrics,
            [*TABLE_1, *SCHEDULE],
            f"Table 1 of {f'rank {part.key}' if by == 'rank' else part.key}",
        )
        for part in comparison.parts
        if part.kind == by
    ]


def _changes_table(
    comparison: Comparison, changes: Sequence[Change], metrics: Sequence[Metric], caption: str
) -> Table:
    baseline, candidate = comparison.baseline, comparison.candidate
    name = moe_name(sorted({*baseline.moe_functions(), *candidate.moe_functions()}))
    found = {change.metric: change for change in changes}
    # A comparison that an older version saved lacks the metrics that came later.
    shown = [(metric, found[metric.key]) for metric in metrics if metric.key in found]
    intervals = [change.interval for _, change in shown if change.interval]
    columns = [
        Column("Metric", "left"),
        Column(baseline.label),
        Column(candidate.label),
        Column("Change"),
        Column("Verdict", "left"),
    ]
    if intervals:
        columns.append(Column(f"{intervals[0].level:.0%} interval, {intervals[0].over}"))
    rows = [
        _metric_row(metric, change, name, with_interval=bool(intervals)) for metric, change in shown
    ]
    return Table(caption, tuple(columns), tuple(rows))


def _metric_row(metric: Metric, change: Change, name: str, *, with_interval: bool) -> Row:
    cells: tuple[str, ...] = (
        metric_label(metric, name),
        metric_text(metric, change.baseline),
        metric_text(metric, change.candidate),
        numbers.change(change.change),
        _verdict(change),
    )
    if with_interval:
        cells += (_interval(change.interval),)
    return Row(cells, GROUP_TITLES[metric.group])


def _verdict(change: Change) -> str:
    if change.verdict is None:
        return numbers.UNKNOWN
    return change.verdict.replace("_", " ").capitalize()


def _interval(interval: Interval | None) -> str:
    return numbers.UNKNOWN if interval is None else _ends(interval.low, interval.high)


def _latency_interval(values: dict[str, Any] | None) -> str:
    return numbers.UNKNOWN if values is None else _ends(values["low"], values["high"])


def _ends(low: float, high: float) -> str:
    return f"{numbers.change(low)} to {numbers.change(high)}"


def counted_note(comparison: Comparison) -> str:
    """Return what counts as the MoE kernel, and how to read the table."""
    functions = {*comparison.baseline.moe_functions(), *comparison.candidate.moe_functions()}
    return (
        f"MoE kernel: {', '.join(sorted(functions))}. Times are sums over all GPUs; StdDev is the "
        "sample's; lower is better in every row."
        + (
            " A distorted step counts as the mean of the usual steps of its phase and size; kinds "
            "of step that have no usual one are left out of both arms there."
            if comparison.undistorted
            else ""
        )
    )
