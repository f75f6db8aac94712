"""Balance: which ranks are slow in which layers, and how that goes on over time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from nsysmoe.reports.pictures.look import (
    BLUE,
    ORANGE,
    SKY,
    VERMILION,
    add_title,
    axes,
    axis_name,
    figure,
    label,
    milliseconds,
    stack_rows,
    stacked_height,
    text,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nsysmoe.analysis.comparing.portrait import Portrait, Rows

# From blue over what stands for 1 to vermilion; light enough in the middle on any background.
_DIVERGING = [[0, BLUE], [0.25, "#8fbbd6"], [0.5, "#f2f0ec"], [0.75, "#eaa87a"], [1, VERMILION]]
_SMALLEST_SCALE = 0.05
_BETWEEN_ARMS = 0.06
_LAYER_PX, _FEWEST_PX, _MOST_PX = 18, 160, 760
_AROUND_PX = 120
_TIME_PX = 190


def layer_heatmap(portraits: Sequence[Portrait]) -> go.Figure | None:
    """Draw each layer's time on each rank over the mean of ranks, the arms on one scale.

    None where no portrait has ``layers``.
    """
    shown = [arm for arm in portraits if arm.layers]
    if not shown:
        return None
    layers = sorted({row["layer"] for arm in shown for row in arm.layers})
    height = max(_FEWEST_PX, min(_MOST_PX, _LAYER_PX * len(layers)))
    drawn = figure(
        [_heatmap(arm, layers, number) for number, arm in enumerate(shown, start=1)],
        height + _AROUND_PX,
        coloraxis=_scale([row["ratio"] for arm in shown for row in arm.layers]),
        # Below: the ranks, their title, and the scale.
        margin={"l": 8, "r": 12, "t": 30, "b": _AROUND_PX - 30},
    )
    drawn.update_yaxes(type="category", autorange="reversed", showticklabels=False)
    drawn.update_xaxes(type="category", title="rank")
    for update in (drawn.update_xaxes, drawn.update_yaxes):
        update(showgrid=False, ticks="")
    drawn.update_layout(yaxis={"showticklabels": True, "title": "layer"})
    for number, (arm, domain) in enumerate(zip(shown, _columns(len(shown)), strict=True), start=1):
        found = axes(number)
        drawn.update_layout(
            {
                axis_name("x", number): {"domain": domain, "anchor": found["yaxis"]},
                axis_name("y", number): {"anchor": found["xaxis"]},
            }
        )
        add_title(drawn, label(arm.label, 22), x=domain[0], y=1)
    return drawn


def _columns(count: int) -> list[list[float]]:
    width = (1 - _BETWEEN_ARMS * (count - 1)) / count
    return [
        [number * (width + _BETWEEN_ARMS), number * (width + _BETWEEN_ARMS) + width]
        for number in range(count)
    ]


def _scale(ratios: Sequence[float | None]) -> dict[str, Any]:
    """Return a colour axis as far above 1 as below, wide enough that noise stays pale."""
    widest = max((abs(ratio - 1) for ratio in ratios if ratio is not None), default=0)
    reach = max(_SMALLEST_SCALE, widest)
    return {
        "colorscale": _DIVERGING,
        "cmid": 1,
        "cmin": 1 - reach,
        "cmax": 1 + reach,
        "colorbar": {
            "orientation": "h",
            "thickness": 10,
            "len": 1,
            "y": 0,
            "yref": "container",
            "yanchor": "bottom",
            "outlinewidth": 0,
            "tickformat": ".2f",
            "ticksuffix": "×",
        },
    }


def _heatmap(arm: Portrait, layers: Sequence[Any], number: int) -> go.Heatmap:
    ranks = sorted({row["rank"] for row in arm.layers})
    cells = {(row["layer"], row["rank"]): row for row in arm.layers}
    found = [[cells.get((layer, rank)) for rank in ranks] for layer in layers]
    return go.Heatmap(
        **axes(number),
        x=[text(str(rank)) for rank in ranks],
        y=[text(str(layer)) for layer in layers],
        z=[[cell and _rounded(cell["ratio"]) for cell in line] for line in found],
        customdata=[[cell and milliseconds(cell["dur_ns"]) for cell in line] for line in found],
        coloraxis="coloraxis",
        hoverongaps=False,
        xgap=1,
        ygap=1,
        hovertemplate="layer %{y}, rank %{x}<br>%{z:.3f} × the mean of ranks"
        "<br>%{customdata:,.3f} ms<extra>" + text(arm.label) + "</extra>",
    )


def _rounded(ratio: float | None) -> float | None:
    return None if ratio is None else round(ratio, 4)


def cells_over_time(portraits: Sequence[Portrait]) -> go.Figure | None:
    """Draw slowest / mean of each step's cells over time, a row an arm on the same axes.

    None where no portrait has ``steps``.
    """
    shown = [arm for arm in portraits if arm.steps]
    if not shown:
        return None
    heights = [_TIME_PX] * len(shown)
    worst = max((row["max"] or 1 for arm in shown for row in arm.steps), default=1)
    room = 0.1 * max(worst - 1, 0.05)
    traces: list[Any] = []
    for number, arm in enumerate(shown, start=1):
        for trace in _arm_over_time(arm, worst + room):
            first = trace.name not in {other.name for other in traces}
            trace.update(**axes(number), legendgroup=trace.name, showlegend=first)
            traces.append(trace)
    drawn = figure(traces, stacked_height(heights), hovermode="closest", dragmode="zoom")
    stack_rows(drawn, [label(arm.label, 36) for arm in shown], heights)
    drawn.update_xaxes(zeroline=False)
    drawn.update_yaxes(fixedrange=True, title="slowest / mean")
    drawn.update_yaxes(range=[1 - room, worst + 2 * room], zeroline=False)
    drawn.update_layout({axis_name("x", len(shown)): {"title": {"text": "s since the first step"}}})
    for number, arm in enumerate(shown, start=1):
        _add_bands(drawn, arm, number)
    return drawn


def _arm_over_time(arm: Portrait, top: float) -> list[go.Scatter]:
    begin = arm.steps[0]["start_ns"]
    distorted = tuple(row for row in arm.steps if row.get("cause"))
    worst = _points("worst cell", arm.steps, "max", begin)
    worst.update(mode="lines", line={"color": SKY, "width": 1.2}, opacity=0.8)
    median = _points("median cell", arm.steps, "p50", begin)
    median.update(mode="lines", line={"color": BLUE, "width": 2})
    crosses = _points("distorted step", distorted, "max", begin)
    crosses.update(mode="markers", marker={"symbol": "x", "size": 8, "color": VERMILION})
    marks = _rearrangements(arm, begin, top)
    return [worst, median, *([crosses] if distorted else []), *([marks] if marks.x else [])]


def _points(name: str, rows: Rows, key: str, begin: int) -> go.Scatter:
    return go.Scatter(
        name=name,
        x=[_seconds(row["start_ns"] - begin) for row in rows],
        y=[_rounded(row[key]) for row in rows],
        text=[_step_hover(row) for row in rows],
        hovertemplate="%{text}<br>slowest / mean: %{y:.3f}<extra>" + name + "</extra>",
    )


def _step_hover(row: dict[str, Any]) -> str:
    cause = f"<br>{text(str(row['cause']))}" if row.get("cause") else ""
    wall = f", {row['wall_ns'] / 1e6:,.3f} ms" if row.get("wall_ns") is not None else ""
    return f"step {text(str(row['step']))}, {text(str(row['phase']))}{wall}{cause}"


def _rearrangements(arm: Portrait, begin: int, top: float) -> go.Scatter:
    """Return marks to hover over; the bands behind them cannot be."""
    return go.Scatter(
        name="rearrangement",
        mode="markers",
        marker={"symbol": "triangle-down", "size": 10, "color": ORANGE},
        x=[_seconds(row["start_ns"] - begin) for row in arm.rearrangements],
        y=[_rounded(top)] * len(arm.rearrangements),
        text=[_rearrangement_hover(row) for row in arm.rearrangements],
        hovertemplate="%{text}<extra>rearrangement</extra>",
    )


def _rearrangement_hover(row: dict[str, Any]) -> str:
    known = (
        (row.get("transfers"), "{:,} transfers"),
        (milliseconds(row.get("stall_ns")), "stall of {:,.3f} ms"),
    )
    return "<br>".join(form.format(value) for value, form in known if value is not None)


def _add_bands(drawn: go.Figure, arm: Portrait, number: int) -> None:
    begin = arm.steps[0]["start_ns"]
    found = axes(number)
    for row in arm.rearrangements:
        drawn.add_shape(
            type="rect",
            layer="below",
            xref=found["xaxis"],
            yref=f"{found['yaxis']} domain",
            x0=_seconds(row["start_ns"] - begin),
            x1=_seconds(row["end_ns"] - begin),
            y0=0,
            y1=1,
            fillcolor=ORANGE,
            opacity=0.35,
            # Seen as a line where the band is narrower than a pixel.
            line={"width": 1, "color": ORANGE},
        )


def _seconds(ns: float) -> float:
    return round(ns / 1e9, 6)
