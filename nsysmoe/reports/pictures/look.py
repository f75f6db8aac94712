"""What all pictures share: colours, the frame around them, and how a text gets into one."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from nsysmoe.reports.escape import visible

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Distinct in print and for the colour-blind (Okabe and Ito); all show on white and on near-black.
BLUE = "#0072b2"
ORANGE = "#e69f00"
GREEN = "#009e73"
VERMILION = "#d55e00"
SKY = "#56b4e9"
GREY = "#7d8590"
FAINT = "rgba(125,133,144,0.25)"
ARMS = (BLUE, ORANGE, GREEN, VERMILION)

# A grey that can be read on both of the page's backgrounds.
FONT = {"color": GREY, "size": 12}
_LONGEST_LABEL = 40
_CLEAR = "rgba(0,0,0,0)"
_MARGIN = {"l": 8, "r": 12, "t": 8, "b": 44}
_TITLE_PX = 26
_ROW_GAP_PX = 40
_LEGEND_PX = 30


def figure(traces: Sequence[Any], height: float, **layout: Any) -> go.Figure:
    """Return a picture that stands on any background, its legend in the container's top."""
    drawn = go.Figure(traces)
    drawn.update_layout(
        # plotly's own template colours the background, and is 7 KB in each picture.
        template="none",
        height=round(height),
        margin=_MARGIN,
        legend={
            "orientation": "h",
            "yref": "container",
            "y": 1,
            "yanchor": "top",
            "xref": "container",
            "x": 0,
            "traceorder": "normal",
        },
        paper_bgcolor=_CLEAR,
        plot_bgcolor=_CLEAR,
        font={**FONT, "family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"},
        # A finger on the picture scrolls the page; where zooming helps, the picture asks for it.
        dragmode=False,
        hoverlabel={"align": "left"},
    )
    # An update of all axes reaches only those that the layout has: those of all rows.
    names = {getattr(trace, f"{letter}axis", None) or letter for trace in traces for letter in "xy"}
    drawn.update_layout({name[0] + "axis" + name[1:]: {} for name in names})
    drawn.update_layout(**layout)
    # Level ticks, and fewer of them where there is little room, rather than slanted ones.
    drawn.update_xaxes(
        gridcolor=FAINT, zerolinecolor=FAINT, title={"standoff": 8}, tickangle=0, automargin=True
    )
    drawn.update_yaxes(gridcolor=FAINT, zerolinecolor=FAINT, automargin=True)
    drawn.update_yaxes(ticklabelstandoff=6)
    return drawn


def axes(row: int) -> dict[str, str]:
    """Return what puts a trace into the row of that number, from 1.

    >>> axes(2)
    {'xaxis': 'x2', 'yaxis': 'y2'}
    """
    end = "" if row == 1 else str(row)
    return {"xaxis": f"x{end}", "yaxis": f"y{end}"}


def axis_name(letter: str, row: int) -> str:
    """Return how a layout calls the axis of a row, from 1: ``xaxis``, ``xaxis2``, ..."""
    return f"{letter}axis{'' if row == 1 else row}"


def stack_rows(
    drawn: go.Figure,
    titles: Sequence[str],
    heights: Sequence[float],
    *,
    is_one_scale: bool = True,
) -> None:
    """Put rows one above the other, each under its title, on x axes of one scale or their own.

    Titles stand inside the plot's area: above it, they would run into the legend.
    """
    total = _rows_px(heights)
    top = total
    for row, (title, height) in enumerate(zip(titles, heights, strict=True), start=1):
        top -= _TITLE_PX
        # The same scale in every row; an axis that matched itself would be warned of.
        follow = {"matches": "x"} if row > 1 and is_one_scale else {}
        domain = [max(0.0, (top - height) / total), top / total]
        drawn.update_layout(
            {
                axis_name("y", row): {"domain": domain, "anchor": axes(row)["xaxis"]},
                axis_name("x", row): {"anchor": axes(row)["yaxis"], **follow},
            }
        )
        add_title(drawn, title, x=0, y=top / total)
        top -= height + _ROW_GAP_PX


def stacked_height(heights: Sequence[float]) -> float:
    """Return the picture's height that gives ``stack_rows`` the heights it was asked for."""
    return _rows_px(heights) + _MARGIN["b"] + _LEGEND_PX


def _rows_px(heights: Sequence[float]) -> float:
    return sum(heights) + _TITLE_PX * len(heights) + _ROW_GAP_PX * (len(heights) - 1)


def add_title(drawn: go.Figure, title: str, *, x: float, y: float) -> None:
    """Write a part's title above its upper left corner; ``title`` is escaped already."""
    drawn.add_annotation(
        text=f"<b>{title}</b>",
        xref="paper",
        yref="paper",
        x=x,
        y=y,
        xanchor="left",
        yanchor="bottom",
        showarrow=False,
        align="left",
    )


def place(row: Mapping[str, Any]) -> str:
    """Return how a picture calls the GPU of a row: by its rank where that is known."""
    if row.get("rank") is not None:
        return f"rank {row['rank']}"
    return f"process {row.get('process')}, GPU {row.get('device')}"


def milliseconds(ns: float | None) -> float | None:
    """Return a time in ms, with no more digits than its ns have."""
    return None if ns is None else round(ns / 1e6, 6)


def label(name: str, longest: int = _LONGEST_LABEL) -> str:
    """Shorten a name in its middle, and escape: beginnings and ends tell kernels apart."""
    if len(name) > longest:
        half = longest // 2 - 1
        name = f"{name[:half]}…{name[-half:]}"
    return text(name)


def text(name: str) -> str:
    """Escape: plotly reads a little HTML in labels, and fills %{…} in hover texts."""
    return html.escape(visible(name)).replace("%{", "%&#123;").replace("$", "&#36;")
