"""One step, kernel by kernel."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from nsysmoe.reports.pictures.look import (
    BLUE,
    GREY,
    ORANGE,
    SKY,
    VERMILION,
    axes,
    axis_name,
    figure,
    label,
    stack_rows,
    stacked_height,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nsysmoe.analysis.comparing.portrait import Portrait

# Kind, colour, and half of the rank's row: computing above, communicating below, for they
# happen at the same time.
KINDS = {
    "moe": ("MoE", BLUE, -0.4),
    "compute": ("other compute", SKY, -0.4),
    "transfer": ("transfer", ORANGE, 0.02),
    "wait": ("wait", VERMILION, 0.02),
    "copy": ("copy", GREY, 0.02),
}
_HALF = 0.38
_RANK_PX, _AXIS_PX = 44, 20
# A name in each of thousands of hover texts: long enough to tell kernels apart.
_LONGEST_NAME = 72


def step_timeline(portraits: Sequence[Portrait]) -> go.Figure | None:
    """Draw the kernels of each arm's step, a row a rank, in us from the step's start.

    None where no portrait has a ``timeline``.
    """
    shown = [arm for arm in portraits if arm.timeline]
    if not shown:
        return None
    traces: list[Any] = []
    for number, arm in enumerate(shown, start=1):
        for trace in _kernels(arm):
            first = trace.name not in {other.name for other in traces}
            trace.update(**axes(number), legendgroup=trace.name, showlegend=first)
            traces.append(trace)
    heights = [_RANK_PX * len(_ranks(arm)) + _AXIS_PX for arm in shown]
    drawn = figure(
        traces,
        stacked_height(heights),
        barmode="overlay",
        hovermode="closest",
        dragmode="zoom",
    )
    stack_rows(drawn, [_title(arm) for arm in shown], heights)
    # The same scale in both arms: the longer step is the longer picture.
    drawn.update_xaxes(rangemode="tozero")
    drawn.update_layout(
        {axis_name("x", len(shown)): {"title": {"text": "us since the step began"}}}
    )
    for number, arm in enumerate(shown, start=1):
        ranks = _ranks(arm)
        rows = {
            "tickvals": list(range(len(ranks))),
            "ticktext": [f"rank {rank}" if rank is not None else "GPU" for rank in ranks],
            "range": [len(ranks) - 0.5, -0.5],
            "fixedrange": True,
            "showgrid": False,
            "zeroline": False,
        }
        drawn.update_layout({axis_name("y", number): rows})
    return drawn


def _title(arm: Portrait) -> str:
    step = "" if arm.timeline_step is None else f", step {arm.timeline_step}"
    choice = f" ({label(arm.timeline_choice, 20)})" if arm.timeline_choice else ""
    return f"{label(arm.label, 24)}{step}{choice}"


def _ranks(arm: Portrait) -> list[int | None]:
    found = {row["rank"] for row in arm.timeline}
    return sorted(found, key=lambda rank: (rank is None, rank or 0))


def _kernels(arm: Portrait) -> list[go.Bar]:
    """Return a trace a kind: plotly draws thousands of bars faster than tens of traces."""
    begin = min(row["start_ns"] for row in arm.timeline)
    rows_of = {rank: position for position, rank in enumerate(_ranks(arm))}
    shorten = cache(lambda name: label(name, _LONGEST_NAME))
    bars = []
    for kind, (name, colour, offset) in KINDS.items():
        rows = [row for row in arm.timeline if row["kind"] == kind]
        if rows:
            durations = [_microseconds(row["dur_ns"]) for row in rows]
            trace = go.Bar(
                name=name,
                orientation="h",
                y=[rows_of[row["rank"]] for row in rows],
                base=[_microseconds(row["start_ns"] - begin) for row in rows],
                x=durations,
                customdata=durations,
                text=[shorten(row["name"]) for row in rows],
                textposition="none",
                offset=offset,
                width=_HALF,
                # The line keeps a kernel visible that is narrower than a pixel.
                marker={"color": colour, "line": {"width": 0.4, "color": colour}},
                # plotly's value of a bar that has a base is where the bar ends.
                hovertemplate="%{text}<br>%{customdata:,} us, from %{base:,} to %{value:,}"
                "<extra>" + name + "</extra>",
            )
            bars.append(trace)
    return bars


def _microseconds(ns: float) -> float | int:
    """Return us with one decimal, and none where it is 0: thousands of them are written."""
    us = round(ns / 1e3, 1)
    return int(us) if us == int(us) else us
