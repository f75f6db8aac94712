"""Kernels: the time of each function, and how long MoE launches took."""

from __future__ import annotations

from math import log10
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from nsysmoe.reports.pictures.look import (
    ARMS,
    FONT,
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

    from nsysmoe.analysis.comparing.comparison import Breakdown
    from nsysmoe.analysis.comparing.portrait import Portrait

_PHASE_PX = 150
# An outline comes up from below one launch, which is where the axis begins.
_NOTHING, _AXIS_BEGINS = 0.5, 0.7


def time_by_kernel(arms: Sequence[tuple[str, Sequence[Breakdown]]]) -> go.Figure:
    """Draw, for each arm, the summed time of each MoE and communication kernel, in ms."""
    totals = [(arm, _by_function(rows)) for arm, rows in arms]
    functions = sorted(
        {name for _, found in totals for name in found},
        key=lambda name: -max(found.get(name, 0) for _, found in totals),
    )
    drawn = go.Figure(
        [
            go.Bar(
                name=text(arm),
                orientation="h",
                y=list(range(len(functions))),
                text=[text(name) for name in functions],
                textposition="none",
                x=[found.get(name, 0) / 1e6 for name in functions],
                marker={"color": colour, "line": {"width": 0}},
                hovertemplate="%{text}<br>%{x:,.3f} ms<extra>" + text(arm) + "</extra>",
            )
            for (arm, found), colour in zip(totals, ARMS, strict=False)
        ]
    )
    drawn.update_layout(
        barmode="group",
        height=140 + 52 * len(functions),
        margin={"l": 8, "r": 16, "t": 8, "b": 48},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font=FONT,
    )
    grey = "rgba(125,133,144,0.25)"
    drawn.update_xaxes(title_text="time over all GPUs, ms", gridcolor=grey, zerolinecolor=grey)
    # Reversed: the largest kernel on top, and the baseline above the candidate.
    drawn.update_yaxes(
        automargin=True,
        autorange="reversed",
        ticksuffix=" ",
        # By position, not by label: two shortened names may read the same.
        tickvals=list(range(len(functions))),
        ticktext=[label(name) for name in functions],
    )
    return drawn


def _by_function(rows: Sequence[Breakdown]) -> dict[str, int]:
    totals: dict[str, int] = {}
    for row in rows:
        totals[row.kernel] = totals.get(row.kernel, 0) + row.total_ns
    return totals


def duration_distributions(portraits: Sequence[Portrait]) -> go.Figure | None:
    """Draw how many MoE launches took how long, a row a phase and a line an arm.

    Both axes are logarithmic: the few launches that took 1,000 times as long have to be seen
    beside the many that did not. None where no portrait has ``durations``.
    """
    phases = list(dict.fromkeys(row["phase"] for arm in portraits for row in arm.durations))
    if not phases:
        return None
    traces = []
    for position, arm in enumerate(portraits):
        shown = False
        for number, phase in enumerate(phases, start=1):
            bins = [row for row in arm.durations if row["phase"] == phase and row["launches"]]
            if bins:
                trace = _outline(arm.label, bins, ARMS[position % len(ARMS)])
                trace.update(**axes(number), legendgroup=str(position), showlegend=not shown)
                traces.append(trace)
                shown = True
    heights = [_PHASE_PX] * len(phases)
    drawn = figure(traces, stacked_height(heights), hovermode="closest")
    most = max(row["launches"] for arm in portraits for row in arm.durations)
    shared = {"type": "log", "dtick": 1}
    drawn.update_xaxes(**shared, tickformat="~s", ticksuffix="s")
    span = [log10(_AXIS_BEGINS), log10(max(most, 1)) + 0.15]
    drawn.update_yaxes(**shared, tickformat="~s", title="launches", range=span)
    stack_rows(drawn, [text(str(phase)) for phase in phases], heights)
    drawn.update_layout({axis_name("x", len(phases)): {"title": {"text": "duration of a launch"}}})
    return drawn


def _outline(name: str, bins: Sequence[dict[str, Any]], colour: str) -> go.Scatter:
    """Return a histogram's outline: down to nothing wherever a bin is missing."""
    corners: list[tuple[float, float, str]] = []
    for row in sorted(bins, key=lambda row: float(row["low_ns"])):
        low, high, launches = row["low_ns"], row["high_ns"], row["launches"]
        hover = f"{launches:,} launches of {low / 1e3:,.4g} to {high / 1e3:,.4g} us"
        # Edges of neighbours are equal but for rounding.
        if not corners or low > corners[-1][0] * 1.001:
            if corners:
                corners.append((corners[-1][0], _NOTHING, ""))
            corners.append((low, _NOTHING, ""))
        corners += [(low, launches, hover), (high, launches, hover)]
    corners.append((corners[-1][0], _NOTHING, ""))
    return go.Scatter(
        name=text(name),
        # In seconds, so that the axis can write us, ms and s by itself.
        x=[float(f"{ns / 1e9:.4g}") for ns, _, _ in corners],
        y=[launches for _, launches, _ in corners],
        text=[hover for _, _, hover in corners],
        mode="lines",
        line={"color": colour, "width": 1.8},
        hovertemplate="%{text}<extra>" + text(name) + "</extra>",
    )
