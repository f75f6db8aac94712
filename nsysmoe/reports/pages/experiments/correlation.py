"""Correlations: coefficients with intervals, with and without outliers."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from nsysmoe.reports import numbers
from nsysmoe.reports.document import Column, Document, Row, Table

if TYPE_CHECKING:
    from nsysmoe.analysis.experiments.correlation import Related, Relations
    from nsysmoe.metrics.statistics.correlation import Correlation, Estimate

_COEFFICIENTS = ("pearson", "spearman", "slope")
_COLUMNS = (
    Column("y", "left"),
    Column("x", "left"),
    Column("Group", "left"),
    Column("Points"),
    Column("Removed"),
    Column("Pearson (95%)"),
    Column("Spearman (95%)"),
    Column("Slope (95%)"),
)
_NOTE = (
    "Removed: points beyond 1.5 IQR of the quartiles on either axis, as in the paper. Intervals: "
    "Fisher's z for correlations, Student's t for slopes (in units of y a unit of x). Each is "
    "for one pair of columns; among twenty pairs that have nothing to do with each other, one "
    "is expected to exclude 0."
)


def correlation_page(found: Relations) -> Document:
    """Return both results, the one that was asked for first."""
    titles = ("Without outliers (IQR rule)", "With all points")
    tables = [_table(found, title, with_iqr=title == titles[0]) for title in titles]
    return Document(
        title=f"Correlations in {found.source}",
        lead=(_sentence(found), _removed(found)),
        tables=tuple(tables if found.is_filtered else tables[::-1]),
        data=[_data(found, row) for row in found.rows],
        records=tuple(_record(found, row) for row in found.rows),
        findings=found.findings,
        notes=(_NOTE,),
    )


def _sentence(found: Relations) -> str:
    """Say which correlations exclude 0."""
    sure = [row for row in found.rows if _excludes_zero(_meant(found, row).pearson)]
    told = [_meant(found, row).pearson for row in found.rows]
    if not any(estimate is not None and estimate.low is not None for estimate in told):
        return "No correlation has an interval: that takes four points or more in a group."
    if not sure:
        return (
            f"No linear correlation excludes 0 among {len(found.rows)} "
            f"({', '.join(dict.fromkeys(row.y for row in found.rows))})."
        )
    named = "; ".join(
        f"{row.y} with {row.x} ({row.group}): {_text(_meant(found, row).pearson)}" for row in sure
    )
    return f"{len(sure)} of {len(found.rows)} linear correlations exclude 0: {named}."


def _removed(found: Relations) -> str:
    removed = sum(row.removed for row in found.rows)
    points = sum(row.points for row in found.rows)
    verb = "removes" if found.is_filtered else "would remove (it is off)"
    return f"The IQR rule {verb} {removed} of {points} points, counted in each pair and group."


def _excludes_zero(estimate: Estimate | None) -> bool:
    if estimate is None or estimate.low is None or estimate.high is None:
        return False
    return estimate.low > 0 or estimate.high < 0


def _meant(found: Relations, row: Related) -> Correlation:
    return row.filtered if found.is_filtered else row.unfiltered


def _table(found: Relations, title: str, *, with_iqr: bool) -> Table:
    return Table(title, _COLUMNS, tuple(_row(row, with_iqr) for row in found.rows))


def _row(row: Related, with_iqr: bool) -> Row:
    shown = row.filtered if with_iqr else row.unfiltered
    return Row(
        (
            row.y,
            row.x,
            row.group,
            numbers.count(shown.points),
            numbers.count(row.removed if with_iqr else 0),
            *(_text(getattr(shown, name)) for name in _COEFFICIENTS),
        )
    )


def _text(estimate: Estimate | None) -> str:
    if estimate is None:
        return numbers.UNKNOWN
    if estimate.low is None or estimate.high is None:
        return numbers.decimal(estimate.value)
    ends = f"{numbers.decimal(estimate.low)} to {numbers.decimal(estimate.high)}"
    return f"{numbers.decimal(estimate.value)} ({ends})"


def _data(found: Relations, row: Related) -> dict[str, Any]:
    return {**asdict(row), "iqr_filter": found.is_filtered}


def _record(found: Relations, row: Related) -> dict[str, Any]:
    head = {
        "x": row.x,
        "y": row.y,
        "group": row.group,
        "points": row.points,
        "removed": row.removed,
        "unknown": row.unknown,
        "iqr_filter": found.is_filtered,
    }
    for kind in ("filtered", "unfiltered"):
        for name in _COEFFICIENTS:
            estimate = getattr(getattr(row, kind), name)
            for end in ("value", "low", "high"):
                head[f"{kind}_{name}_{end}"] = None if estimate is None else getattr(estimate, end)
    return head
