"""Loads as heatmaps: who carries how many times a fair share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from nsysmoe.reports.pictures.look import ARMS, BLUE, ORANGE, VERMILION, figure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Ratios that differ from 1 by less are pale.
_LEAST_REACH = 0.05
_FEW = 16
_ROW_PX, _FRAME_PX, _MOST_PX = 18, 110, 1200


def heatmap(
    rows: Sequence[Sequence[float]],
    across: str,
    down: str,
    *,
    names: Sequence[int] | None = None,
) -> go.Figure | None:
    """Draw loads relative to the mean of their row; None where there is no load.

    Args:
        rows: Loads, one list a row.
        across: What a column is.
        down: What a row is.
        names: Number of each row; None to count from 0.
    """
    if not any(map(sum, rows)):
        return None
    means = [sum(row) / len(row) for row in rows]
    return _around_one(_over(rows, means), (across, down), "mean", names)


def scaled_heatmap(
    rows: Sequence[Sequence[float]], means: Sequence[float], highest: float, names: Sequence[int]
) -> go.Figure | None:
    """Draw loads of experts by layer on a scale that several pictures share.

    None where there is no load.

    Args:
        rows: Loads, one list a layer.
        means: What 1 is, by layer.
        highest: Upper end of the colours, in units of these.
        names: Number of each layer.
    """
    if not any(map(sum, rows)):
        return None
    return _around_one(_over(rows, means), ("expert", "layer"), "mean", names, highest)


def _over(rows: Sequence[Sequence[float]], means: Sequence[float]) -> list[list[float | None]]:
    return [
        [round(value / mean, 4) if mean else None for value in row]
        for row, mean in zip(rows, means, strict=True)
    ]


def lift_heatmap(rows: Sequence[Sequence[float | None]], across: str, down: str) -> go.Figure:
    """Draw ratios to what is expected, blank where unknown.

    Args:
        rows: Ratios, one list a row.
        across: What a column is.
        down: What a row is.
    """
    shown = [[None if value is None else round(value, 4) for value in row] for row in rows]
    return _around_one(shown, (across, down), "expected")


def lines(
    x: Sequence[float], series: Mapping[str, Sequence[float | None]], across: str, up: str
) -> go.Figure:
    """Draw named values over x."""
    drawn = figure(
        [
            go.Scatter(x=list(x), y=list(values), name=name, mode="lines+markers",
                       line={"color": colour})
            for (name, values), colour in zip(series.items(), ARMS, strict=False)
        ],
        320,
    )  # fmt: skip
    drawn.update_xaxes(title=across)
    drawn.update_yaxes(title=up)
    return drawn


def _around_one(
    rows: Sequence[Sequence[float | None]],
    titles: tuple[str, str],
    unit: str,
    names: Sequence[int] | None = None,
    highest: float | None = None,
) -> go.Figure:
    """Draw ratios: pale at 1, blue below, vermilion above, as far below as above down to 0."""
    known = [value for row in rows for value in row if value is not None]
    reach = (
        max((abs(value - 1) for value in known), default=1.0) if highest is None else highest - 1
    )
    reach = max(reach, _LEAST_REACH)
    low, high = max(0.0, 1 - reach), 1 + reach
    pale = (1 - low) / (high - low)
    across, down = titles
    hover = f"{down} %{{y}}, {across} %{{x}}: %{{z:.3f}} × {unit}<extra></extra>"
    drawn = figure(
        [
            go.Heatmap(
                y=None if names is None else [str(name) for name in names],
                z=rows,
                zmin=low,
                zmax=high,
                colorscale=[[0, BLUE], [pale, "#f7f7f7"], [1, VERMILION]],
                colorbar={"title": {"text": f"× {unit}"}},
                hovertemplate=hover,
                hoverongaps=False,
            )
        ],
        min(_MOST_PX, _FRAME_PX + _ROW_PX * max(4, len(rows))),
    )
    drawn.update_xaxes(title=across)
    if len(rows[0]) <= _FEW:
        # No half experts.
        drawn.update_xaxes(dtick=1)
    drawn.update_yaxes(title=down, autorange="reversed")
    if names is not None:
        drawn.update_yaxes(type="category")
    return drawn


def curve(
    rows: Sequence[Mapping[str, Any]], observed: Sequence[Mapping[str, Any]] = ()
) -> go.Figure | None:
    """Draw the imbalance of a uniform router over the batch size, on logarithmic axes.

    None where there are no batches.

    Args:
        rows: ``tokens``, ``expected_cv``, ``excess_over_mean``.
        observed: Points of a log: ``scope``, ``tokens``, ``cv``, ``excess_over_mean``.
    """
    if not rows:
        return None
    tokens = [row["tokens"] for row in rows]
    drawn = figure(
        [
            go.Scatter(
                x=tokens,
                y=[row["expected_cv"] for row in rows],
                name="CV, exact",
                line={"color": BLUE},
            ),
            go.Scatter(
                line={"color": ORANGE},
                x=tokens,
                y=[row["excess_over_mean"] for row in rows],
                name="(max − mean) / mean",
            ),
            *_points(observed),
        ],
        320,
    )
    drawn.update_xaxes(title="tokens of a batch", type="log")
    drawn.update_yaxes(title="imbalance", type="log")
    return drawn


def _points(observed: Sequence[Mapping[str, Any]]) -> list[go.Scatter]:
    """Draw what was observed as marks in the colour of its curve."""
    names = {"run": "over the run", "step": "in single steps"}
    return [
        go.Scatter(
            x=[row["tokens"]],
            y=[row[key]],
            mode="markers",
            marker={"color": colour, "size": 11, "symbol": symbol},
            name=f"{title}, observed {names[row['scope']]}",
        )
        for row, symbol in zip(observed, ("diamond", "circle"), strict=False)
        for key, title, colour in (
            ("cv", "CV", BLUE),
            ("excess_over_mean", "(max − mean) / mean", ORANGE),
        )
    ]


def bars(rows: Sequence[tuple[str, float]]) -> go.Figure:
    """Draw one bar for each named value."""
    drawn = figure(
        [
            go.Bar(
                orientation="h",
                y=[name for name, _ in rows],
                x=[value for _, value in rows],
                marker={"color": BLUE},
                hovertemplate="%{y}: %{x:.4f} × perfect balance<extra></extra>",
            )
        ],
        _FRAME_PX + 2 * _ROW_PX * len(rows),
    )
    drawn.update_xaxes(title="× perfect balance", rangemode="tozero")
    drawn.update_yaxes(autorange="reversed")
    return drawn
