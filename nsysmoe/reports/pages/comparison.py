"""Table 1: two arms, change and verdict."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from nsysmoe.metrics.table1 import BESIDE, TABLE_1
from nsysmoe.reports import numbers
from nsysmoe.reports.document import Column, Document, Picture, Row, Table
from nsysmoe.reports.pictures import time_by_kernel

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nsysmoe.analysis.comparison import Breakdown, Change, Comparison
    from nsysmoe.metrics.table1 import Metric, Value

GROUP_TITLES = {
    "moe_kernel": "MoE Kernel Performance",
    "communication": "Communication Overhead",
}
_FORMATTERS: dict[str, Callable[[Value], str]] = {
    "ms": numbers.milliseconds,
    "us": numbers.microseconds,
    "times": numbers.times,
    "plain": numbers.decimal,
    "count": numbers.count,
}


def comparison_page(comparison: Comparison, *, full: bool = False) -> Document:
    """Return Table 1; ``full`` adds the metrics beside it and the time by kernel and device."""
    baseline, candidate = comparison.baseline, comparison.candidate
    tables = [metrics_table(comparison, TABLE_1, "Table 1: ")]
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
        tables=tuple(tables),
        data=comparison.to_dict(),
        records=tuple(asdict(change) for change in comparison.metrics),
        findings=comparison.findings,
        notes=(counted_note(comparison),),
        pictures=(
            Picture(
                "Kernel time by function, both arms",
                lambda: time_by_kernel(
                    [(side.label, side.breakdown) for side in (baseline, candidate)]
                ),
            ),
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
                    numbers.identifier(row.process),
                    numbers.identifier(row.device),
                    numbers.count(row.launches),
                    numbers.milliseconds(row.total_ns),
                ),
                GROUP_TITLES[row.group],
            )
            for row in rows
        ),
    )


def metrics_table(comparison: Comparison, metrics: Sequence[Metric], what: str) -> Table:
    """Return these metrics of both arms, the change and its verdict."""
    baseline, candidate = comparison.baseline, comparison.candidate
    functions = sorted({*baseline.moe_functions(), *candidate.moe_functions()})
    name = moe_name(functions)
    columns = (
        Column("Metric", "left"),
        Column(baseline.label),
        Column(candidate.label),
        Column("Change"),
        Column("Verdict", "left"),
    )
    changes = {change.metric: change for change in comparison.metrics}
    # A comparison that an older version saved lacks the metrics that came later.
    rows = [
        _metric_row(metric, changes[metric.key], name)
        for metric in metrics
        if metric.key in changes
    ]
    return Table(f"{what}{baseline.label} against {candidate.label}", columns, tuple(rows))


def _metric_row(metric: Metric, change: Change, name: str) -> Row:
    verdict = change.verdict.capitalize() if change.verdict else numbers.UNKNOWN
    return Row(
        (
            metric_label(metric, name),
            metric_text(metric, change.baseline),
            metric_text(metric, change.candidate),
            numbers.change(change.change),
            verdict,
        ),
        GROUP_TITLES[metric.group],
    )


def counted_note(comparison: Comparison) -> str:
    """Return what counts as the MoE kernel, and how to read the table."""
    functions = {*comparison.baseline.moe_functions(), *comparison.candidate.moe_functions()}
    return (
        f"MoE kernel: {', '.join(sorted(functions))}. Times are sums over all GPUs; StdDev is the "
        "sample's; lower is better in every row."
    )
