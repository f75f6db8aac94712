"""Every run of two arms, a point each: what means and intervals are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import plotly.graph_objects as go

from nsysmoe.reports.pictures.look import (
    ARMS,
    FAINT,
    axes,
    axis_name,
    figure,
    label,
    stack_rows,
    stacked_height,
    text,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

_LANE_PX = 22
_SYMBOLS = ("circle", "diamond")


def each_run(
    rows: Sequence[tuple[str, Sequence[Sequence[float]]]], labels: Sequence[str]
) -> go.Figure | None:
    """Draw each run's value, a row a measure on a scale of its own, a lane an arm.

    Args:
        rows: Title and the values of each arm, a value a run.
        labels: What the arms are called.

    Returns:
        None where there is no row.
    """
    if not rows:
        return None
    heights = [_LANE_PX * len(labels)] * len(rows)
    traces = []
    for number, (title, arms) in enumerate(rows, start=1):
        for lane, values in enumerate(arms):
            trace = _points(title, values, lane, labels[lane])
            trace.update(**axes(number), showlegend=number == 1)
            traces.append(trace)
    drawn = figure(traces, stacked_height(heights), hovermode="closest")
    stack_rows(drawn, [text(title) for title, _ in rows], heights, is_one_scale=False)
    for number in range(1, len(rows) + 1):
        lanes = {"range": [len(labels) - 0.5, -0.5], "visible": False}
        drawn.update_layout({axis_name("y", number): lanes})
        drawn.update_layout({axis_name("x", number): {"gridcolor": FAINT, "zeroline": False}})
    return drawn


def _points(title: str, values: Sequence[float], lane: int, arm: str) -> go.Scatter:
    return go.Scatter(
        name=label(arm),
        legendgroup=str(lane),
        mode="markers",
        x=list(values),
        y=[lane] * len(values),
        marker={"color": ARMS[lane], "symbol": _SYMBOLS[lane], "size": 9, "opacity": 0.75},
        text=[f"{text(title)}: {value:,.4g}<br>run {run}" for run, value in enumerate(values, 1)],
        hovertemplate=f"%{{text}}<extra>{text(arm)}</extra>",
    )
