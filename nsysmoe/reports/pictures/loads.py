"""Loads as heatmaps: who carries how many times a fair share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from nsysmoe.reports.pictures.look import BLUE, VERMILION, figure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_ROW_PX, _FRAME_PX, _MOST_PX = 18, 110, 1200


def heatmap(rows: Sequence[Sequence[float]], across: str, down: str) -> go.Figure | None:
    """Draw loads relative to the mean of their row; None where there is no load.

    Args:
        rows: Loads, one list a row.
        across: What a column is.
        down: What a row is.
    """
    if not any(map(sum, rows)):
        return None
    shares = [
        [round(value * len(row) / sum(row), 4) for value in row] if sum(row) else [None] * len(row)
        for row in rows
    ]
    highest = max(value for row in shares for value in row if value is not None)
    drawn = figure(
        [
            go.Heatmap(
                z=shares,
                zmin=0,
                zmid=1,
                zmax=max(highest, 1.001),
                colorscale=[[0, BLUE], [0.5, "#f7f7f7"], [1, VERMILION]],
                colorbar={"title": {"text": "× mean"}},
                hovertemplate=f"{down} %{{y}}, {across} %{{x}}: %{{z:.3f}} × mean<extra></extra>",
            )
        ],
        min(_MOST_PX, _FRAME_PX + _ROW_PX * max(4, len(rows))),
    )
    drawn.update_xaxes(title=across)
    drawn.update_yaxes(title=down, autorange="reversed")
    return drawn


def curve(rows: Sequence[Mapping[str, Any]]) -> go.Figure | None:
    """Draw the imbalance of a uniform router over the batch size, on logarithmic axes.

    None where there are no batches.
    """
    if not rows:
        return None
    tokens = [row["tokens"] for row in rows]
    drawn = figure(
        [
            go.Scatter(x=tokens, y=[row["expected_cv"] for row in rows], name="CV, exact"),
            go.Scatter(
                x=tokens, y=[row["excess_over_mean"] for row in rows], name="(max − mean) / mean"
            ),
        ],
        320,
    )
    drawn.update_xaxes(title="tokens of a batch", type="log")
    drawn.update_yaxes(title="imbalance", type="log")
    return drawn


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
