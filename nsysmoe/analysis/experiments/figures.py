"""Figures 1 to 5 of the paper, as rows: what each panel shows, from the table of a sweep."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsysmoe.errors import MissingDataError
from nsysmoe.findings import Finding
from nsysmoe.sweep.table import (
    EXPECTED_SCORE,
    MEASURES,
    OBSERVED_CV,
    ROUTING,
    means_by_point,
    read_table,
    varied_settings,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import polars as pl

ALL = "all"
# Sections 6.1 and 6.3: number, x columns, y columns.
_FIGURES = (
    (1, ("max_num_seqs", "max_num_batched_tokens"), ("ttft_s",)),
    (2, ("max_num_seqs", "max_num_batched_tokens"), ("tpot_s",)),
    (3, ("max_num_seqs", "max_num_batched_tokens"), ("output_tokens_per_s",)),
    (4, (EXPECTED_SCORE,), ("ttft_s", "tpot_s", "output_tokens_per_s")),
    (5, (OBSERVED_CV,), ("ttft_s", "tpot_s", "output_tokens_per_s")),
)
_IMBALANCE = (EXPECTED_SCORE, OBSERVED_CV)


@dataclass(frozen=True)
class Panel:
    """One part of a figure.

    Attributes:
        x: Column.
        y: Column.
        rows: ``routing``, ``x``, ``y``, ``low``, ``high`` (of the points that y is the mean of),
            ``points``, ``kept`` (False where the IQR rule drops it).
        unpaired: Points that are in no row, since other values of x were not run beside them.
        others: Settings beside x and routing that differ between points.
        is_paired: Whether all rows are means over the same values of those.
    """

    x: str
    y: str
    rows: tuple[dict[str, Any], ...]
    unpaired: int = 0
    others: tuple[str, ...] = ()
    is_paired: bool = True

    @property
    def removed(self) -> int:
        """Points that the IQR rule drops."""
        return sum(not row["kept"] for row in self.rows)


@dataclass(frozen=True)
class Figure:
    """A figure of the paper: its number, and panels from left to right; none where not known."""

    number: int
    panels: tuple[Panel, ...]

    @property
    def is_scatter(self) -> bool:
        """Whether points stand against imbalance, rather than lines against a setting."""
        return any(panel.x in _IMBALANCE for panel in self.panels)


@dataclass(frozen=True)
class Figures:
    """All five."""

    source: str
    figures: tuple[Figure, ...]
    findings: tuple[Finding, ...]


def figures(path: Path | str, *, iqr: bool = True) -> Figures:
    """Return the five figures of a table.

    Args:
        path: Table of a sweep.
        iqr: Whether the IQR rule drops points of figures 4 and 5, in each routing on its own.

    Raises:
        NsysmoeError: The table cannot be read, or holds the columns of no figure.
    """
    frame = means_by_point(read_table(Path(path)))
    if ROUTING not in frame.columns:
        frame = _all_together(frame)
    found = tuple(
        Figure(number, tuple(p for x in xs for y in ys if (p := _panel(frame, x, y, iqr))))
        for number, xs, ys in _FIGURES
    )
    if not any(figure.panels for figure in found):
        raise MissingDataError(
            f"{path} holds no figure: it needs columns of {', '.join(MEASURES)} and of settings; "
            "nsysmoe sweep collect writes them"
        )
    return Figures(str(path), found, _findings(found))


def _all_together(frame: pl.DataFrame) -> pl.DataFrame:
    import polars as pl  # noqa: PLC0415 - slow to import

    return frame.with_columns(pl.lit(ALL).alias(ROUTING))


def _panel(frame: pl.DataFrame, x: str, y: str, iqr: bool) -> Panel | None:
    if not {x, y} <= set(frame.columns):
        return None
    if not (frame[x].dtype.is_numeric() and frame[y].dtype.is_numeric()):
        return None
    known = frame.filter(frame[x].is_finite() & frame[y].is_finite())
    if known.is_empty():
        return None
    if x in _IMBALANCE:
        return Panel(x, y, tuple(_scattered(known, x, y, iqr)))
    others = tuple(name for name in varied_settings(known) if name != x)
    paired = _paired(known, x, others)
    # Where none was run with every value, means over different ones are all there is.
    shown = paired if paired.height else known
    rows = tuple(_means(shown, x, y))
    return Panel(x, y, rows, known.height - shown.height, others, paired.height > 0)


def _paired(frame: pl.DataFrame, x: str, others: Sequence[str]) -> pl.DataFrame:
    """Return the points whose other settings were run with every value of x and routing.

    Means over other settings would else differ because the settings do.
    """
    import polars as pl  # noqa: PLC0415

    if not others:
        return frame
    cells = frame.select(ROUTING, x).n_unique()
    complete = (
        frame.group_by(others)
        .agg(pl.struct(ROUTING, x).n_unique().alias("cells"))
        .filter(pl.col("cells") == cells)
    )
    return frame.join(complete, on=others, how="semi", nulls_equal=True)


def _means(frame: pl.DataFrame, x: str, y: str) -> list[dict[str, Any]]:
    """Return a row a routing and setting: the mean over all other settings, and its range."""
    import polars as pl  # noqa: PLC0415

    value = pl.col(y)
    grouped = frame.group_by([ROUTING, x], maintain_order=True).agg(
        value.mean().alias("y"),
        value.min().alias("low"),
        value.max().alias("high"),
        pl.len().alias("points"),
    )
    order = {name: place for place, name in enumerate(frame[ROUTING].unique(maintain_order=True))}
    rows = [
        {"routing": row[ROUTING], "x": row[x], **_ends(row), "kept": True}
        for row in grouped.iter_rows(named=True)
    ]
    return sorted(rows, key=lambda row: (order[row["routing"]], row["x"]))


def _ends(row: dict[str, Any]) -> dict[str, Any]:
    return {key: row[key] for key in ("y", "low", "high", "points")}


def _scattered(frame: pl.DataFrame, x: str, y: str, iqr: bool) -> list[dict[str, Any]]:
    from nsysmoe.metrics.statistics.correlation import within_fences  # noqa: PLC0415 - numpy

    rows = []
    for (routing,), part in frame.group_by([ROUTING], maintain_order=True):
        xs, ys = (part[name].cast(float).to_numpy() for name in (x, y))
        kept = within_fences(xs, ys).tolist() if iqr else [True] * len(part)
        rows += [
            {"routing": routing, "x": a, "y": b, "low": b, "high": b, "points": 1, "kept": k}
            for a, b, k in zip(xs.tolist(), ys.tolist(), kept, strict=True)
        ]
    return rows


def _findings(found: Sequence[Figure]) -> tuple[Finding, ...]:
    return (*_incomplete(found), *_outliers(found))


def _incomplete(found: Sequence[Figure]) -> Iterator[Finding]:
    """Say which means over other settings leave points out, or compare different settings."""
    panels = [panel for figure in found for panel in figure.panels]
    left = {panel.x: panel.unpaired for panel in panels if panel.unpaired}
    if left:
        named = ", ".join(f"{number} by {x}" for x, number in left.items())
        message = (
            f"the grid is not complete: points whose other settings were not run with every value "
            f"and routing are left out ({named}), since means would compare different settings"
        )
        yield Finding("incomplete_grid", "warning", message, dict(left))
    unpaired = {panel.x: list(panel.others) for panel in panels if not panel.is_paired}
    for x, others in unpaired.items():
        message = (
            f"means by {x} are over different settings each: no {' with '.join(others)} was run "
            "with every value and routing"
        )
        yield Finding("unpaired_settings", "warning", message, {"x": x, "others": others})


def _outliers(found: Sequence[Figure]) -> Iterator[Finding]:
    removed = {f"figure {figure.number}": sum(p.removed for p in figure.panels) for figure in found}
    dropped = {name: number for name, number in removed.items() if number}
    if not dropped:
        return
    named = ", ".join(f"{number} in {name}" for name, number in dropped.items())
    message = f"the IQR rule (1.5 on both axes) removed points: {named}; --no-iqr keeps them"
    yield Finding("outliers_removed", "info", message, dict(dropped))
