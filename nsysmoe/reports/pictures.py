"""Figures, drawn with plotly."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

import plotly.graph_objects as go

from nsysmoe.reports.escape import visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nsysmoe.analysis.comparison import Breakdown

# Distinct in print and for the colour-blind (Okabe and Ito).
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#d55e00")
_LONGEST_LABEL = 40


def time_by_kernel(arms: Sequence[tuple[str, Sequence[Breakdown]]]) -> go.Figure:
    """Draw, for each arm, the summed time of each MoE and communication kernel, in ms."""
    totals = [(label, _by_function(rows)) for label, rows in arms]
    functions = sorted(
        {name for _, found in totals for name in found},
        key=lambda name: -max(found.get(name, 0) for _, found in totals),
    )
    figure = go.Figure(
        [
            go.Bar(
                name=_text(label),
                orientation="h",
                y=list(range(len(functions))),
                text=[_text(name) for name in functions],
                textposition="none",
                x=[found.get(name, 0) / 1e6 for name in functions],
                marker={"color": colour, "line": {"width": 0}},
                hovertemplate="%{text}<br>%{x:,.3f} ms<extra>" + _text(label) + "</extra>",
            )
            for (label, found), colour in zip(totals, _COLOURS, strict=False)
        ]
    )
    figure.update_layout(
        barmode="group",
        height=140 + 52 * len(functions),
        margin={"l": 8, "r": 16, "t": 8, "b": 48},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        # A grey that can be read on both of the page's backgrounds.
        font={"color": "#7d8590", "size": 12},
    )
    grey = "rgba(125,133,144,0.25)"
    figure.update_xaxes(title_text="time over all GPUs, ms", gridcolor=grey, zerolinecolor=grey)
    # Reversed: the largest kernel on top, and the baseline above the candidate.
    figure.update_yaxes(
        automargin=True,
        autorange="reversed",
        ticksuffix=" ",
        # By position, not by label: two shortened names may read the same.
        tickvals=list(range(len(functions))),
        ticktext=[_label(name) for name in functions],
    )
    return figure


def _by_function(rows: Sequence[Breakdown]) -> dict[str, int]:
    totals: dict[str, int] = {}
    for row in rows:
        totals[row.kernel] = totals.get(row.kernel, 0) + row.total_ns
    return totals


def _label(name: str) -> str:
    """Shorten a name in its middle: beginnings and ends tell kernels apart."""
    if len(name) > _LONGEST_LABEL:
        half = _LONGEST_LABEL // 2 - 1
        name = f"{name[:half]}…{name[-half:]}"
    return _text(name)


def _text(text: str) -> str:
    """Escape: plotly reads a little HTML in labels, and fills %{…} in hover texts."""
    return html.escape(visible(text)).replace("%{", "%&#123;").replace("$", "&#36;")
