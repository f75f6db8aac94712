"""How performance goes with imbalance, by routing, with and without outliers (section 5.3.4)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsysmoe.errors import MissingDataError
from nsysmoe.findings import Finding
from nsysmoe.sweep.table import EXPECTED_SCORE, ROUTING, means_by_point, numeric_column, read_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    import polars as pl

    from nsysmoe.metrics.statistics.correlation import Correlation

ALL = "all"
_LARGEST = 1e150


@dataclass(frozen=True)
class Related:
    """How one measure goes with another in one group.

    Attributes:
        x: Column.
        y: Column.
        group: Value of the column that groups, or ``all``.
        points: Before the filter.
        removed: Points that the IQR rule drops, 1.5 IQR beyond the quartiles of either axis.
        unknown: Points left out because x or y is null or not finite.
        filtered: Of what the rule keeps.
        unfiltered: Of all points.
    """

    x: str
    y: str
    group: str
    points: int
    removed: int
    unknown: int
    filtered: Correlation
    unfiltered: Correlation


@dataclass(frozen=True)
class Relations:
    """Every measure with every other, in every group.

    Attributes:
        source: The table.
        is_filtered: Whether the filter was asked for: which of the two results is meant.
        rows: In the order of ``y``, then of groups.
        findings: What to know before believing them.
    """

    source: str
    is_filtered: bool
    rows: tuple[Related, ...]
    findings: tuple[Finding, ...]


def correlation(  # noqa: PLR0913 - how points are made, by keyword
    path: Path | str,
    x: Sequence[str] = (EXPECTED_SCORE,),
    y: Sequence[str] = ("ttft", "tpot", "throughput"),
    *,
    by: str | None = ROUTING,
    iqr: bool = True,
    each_run: bool = False,
) -> Relations:
    """Correlate columns of a table.

    Args:
        path: Table of a sweep, or any other with such columns.
        x: Columns of imbalance.
        y: Columns of performance, by name or short name (``tpot``).
        by: Column whose values are looked at one by one; None, or absent, for all together.
        iqr: Whether the result without outliers is the one that is meant.
        each_run: Take runs as points, rather than means over repeats.

    Raises:
        NsysmoeError: The table cannot be read or lacks a column.
    """
    path = Path(path)
    frame = read_table(path)
    if by is not None and by != ROUTING and by not in frame.columns:
        raise MissingDataError(f"{path} has no column {by} to group by")
    pairs = [
        (numeric_column(frame, one, str(path)), numeric_column(frame, other, str(path)))
        for one in x
        for other in y
    ]
    rows = frame if each_run else means_by_point(frame)
    parts = _parts(rows, by)
    found = tuple(_related(part, group, *pair) for pair in pairs for group, part in parts)
    return Relations(str(path), iqr, found, _findings(found))


def _parts(frame: pl.DataFrame, by: str | None) -> list[tuple[str, pl.DataFrame]]:
    if by is None or by not in frame.columns:
        return [(ALL, frame)]
    return [
        (str(key[0]), part) for key, part in frame.group_by(by, maintain_order=True) if len(part)
    ]


def _related(frame: pl.DataFrame, group: str, x: str, y: str) -> Related:
    import numpy as np  # noqa: PLC0415 - slow to import

    from nsysmoe.metrics.statistics.correlation import correlate, within_fences  # noqa: PLC0415

    values = [frame[name].cast(float).to_numpy() for name in (x, y)]
    # Squares of what is larger than this are beyond doubles.
    is_known = (np.abs(values[0]) < _LARGEST) & (np.abs(values[1]) < _LARGEST)
    xs, ys = (column[is_known] for column in values)
    kept = within_fences(xs, ys)
    return Related(
        x=x,
        y=y,
        group=group,
        points=len(xs),
        removed=int((~kept).sum()),
        unknown=int((~is_known).sum()),
        filtered=correlate(xs[kept], ys[kept]),
        unfiltered=correlate(xs, ys),
    )


def _findings(rows: Sequence[Related]) -> tuple[Finding, ...]:
    found = []
    for row in rows:
        where = f"{row.y} against {row.x} ({row.group})"
        if row.unknown:
            message = f"{where}: {row.unknown} point(s) lack a value and were left out"
            found.append(Finding("unknown_points", "warning", message, _evidence(row)))
        if row.unfiltered.pearson is None:
            message = f"{where}: no correlation, for a value does not vary over {row.points} points"
            found.append(Finding("constant", "warning", message, _evidence(row)))
        elif _turns(row):
            message = (
                f"{where}: the correlation changes its sign with the {row.removed} removed "
                "point(s); neither sign is known"
            )
            found.append(Finding("outliers_decide", "warning", message, _evidence(row)))
    return tuple(found)


def _turns(row: Related) -> bool:
    first, second = row.filtered.pearson, row.unfiltered.pearson
    return first is not None and second is not None and first.value * second.value < 0


def _evidence(row: Related) -> dict[str, Any]:
    return {"x": row.x, "y": row.y, "group": row.group, "points": row.points}
