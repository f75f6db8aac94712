"""Figures 1 to 5 of the paper on one page, with their rows."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from nsysmoe.reports import numbers
from nsysmoe.reports.document import Column, Document, Picture, Row, Table
from nsysmoe.reports.pictures.sweep import AXES, sweep_figure
from nsysmoe.reports.static import write_images, write_rows

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from nsysmoe.analysis.experiments.figures import Figure, Figures, Panel
    from nsysmoe.reports.static import Suffix

_CAPTIONS = {
    1: "Figure 1: TTFT by settings",
    2: "Figure 2: TPOT by settings",
    3: "Figure 3: output throughput by settings",
    4: "Figure 4: performance against expected imbalance",
    5: "Figure 5: performance against observed imbalance",
}
_LINES = (
    "Each point is the mean over all settings of the other axis; its bar goes from the lowest to "
    "the highest of them."
)
_POINTS = "Each point is the mean of the repeats of one data set and setting."
_COLUMNS = (
    Column("Figure"),
    Column("Routing", "left"),
    Column("x", "left"),
    Column("x value"),
    Column("y", "left"),
    Column("y value"),
    Column("Lowest"),
    Column("Highest"),
    Column("Kept", "left"),
)
_SUMMARY = (
    Column("Figure", "left"),
    Column("Panels"),
    Column("Values drawn"),
    Column("Removed (IQR)"),
)


def figures_page(found: Figures) -> Document:
    """Return the page; figures without their columns are named as missing."""
    return Document(
        title=f"Figures of {found.source}",
        lead=(_sentence(found.figures),),
        tables=(
            Table("Figures", _SUMMARY, tuple(map(_summary_row, found.figures))),
            Table("What the figures are drawn from", _COLUMNS, _rows(found.figures)),
        ),
        data=[asdict(figure) for figure in found.figures],
        records=tuple(row for figure in found.figures for row in figure_rows(figure)),
        findings=found.findings,
        pictures=tuple(
            Picture(
                _CAPTIONS[figure.number],
                partial(sweep_figure, figure),
                _POINTS if figure.is_scatter else _LINES,
            )
            for figure in found.figures
        ),
    )


def write_figures(found: Figures, folder: Path, static: Suffix | None) -> list[Path]:
    """Write ``figure-N.csv``, and ``figure-N.svg`` or ``.png`` if asked for; return the files.

    Raises:
        OutputError: The folder cannot be written, or pictures cannot be drawn here.
    """
    figures = {folder / f"figure-{one.number}.csv": one for one in found.figures if one.panels}
    for path, figure in figures.items():
        write_rows(figure_rows(figure), path)
    if static is None:
        return list(figures)
    # Last: only now is seen whether pictures can be drawn.
    drawn = {path.with_suffix(f".{static}"): sweep_figure(one) for path, one in figures.items()}
    return [*figures, *write_images(drawn, static)]


def figure_rows(figure: Figure) -> list[dict[str, Any]]:
    """Return the rows that a figure is drawn from."""
    return [
        {"figure": figure.number, "x_column": panel.x, "y_column": panel.y, **row}
        for panel in figure.panels
        for row in panel.rows
    ]


def _sentence(figures: Sequence[Figure]) -> str:
    drawn = [str(figure.number) for figure in figures if figure.panels]
    missing = [str(figure.number) for figure in figures if not figure.panels]
    rest = f"; the table lacks the columns of {', '.join(missing)}" if missing else ""
    return f"The table holds figures {', '.join(drawn)} of the paper{rest}."


def _summary_row(figure: Figure) -> Row:
    removed = sum(panel.removed for panel in figure.panels)
    drawn = sum(len(panel.rows) for panel in figure.panels) - removed
    cells = (len(figure.panels), drawn, removed)
    return Row((_CAPTIONS[figure.number], *map(numbers.count, cells)))


def _rows(figures: Sequence[Figure]) -> tuple[Row, ...]:
    return tuple(
        _row(figure.number, panel, row)
        for figure in figures
        for panel in figure.panels
        for row in panel.rows
    )


def _row(number: int, panel: Panel, row: dict[str, Any]) -> Row:
    title, scale = AXES[panel.y]
    return Row(
        (
            str(number),
            str(row["routing"]),
            AXES[panel.x][0],
            f"{row['x']:.6g}" if isinstance(row["x"], float) else str(row["x"]),
            title,
            *(numbers.decimal(row[key] * scale) for key in ("y", "low", "high")),
            "yes" if row["kept"] else "no",
        )
    )
