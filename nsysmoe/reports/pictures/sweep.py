"""Figures of a sweep: measures against settings, and against imbalance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from nsysmoe.reports.pictures.look import ARMS, add_title, axes, axis_name, figure, label, text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nsysmoe.analysis.experiments.figures import Figure, Panel

_HEIGHT_PX = 340
_GAP = 0.09
_TITLE_AT = 1.02
# Axes: what it is called, and what its values are multiplied by.
AXES = {
    "ttft_s": ("TTFT, ms", 1e3),
    "tpot_s": ("TPOT, ms", 1e3),
    "output_tokens_per_s": ("output throughput, tokens/s", 1.0),
    "max_num_seqs": ("max-num-seqs", 1.0),
    "max_num_batched_tokens": ("max-num-batched-tokens", 1.0),
    "expected_score": ("expected imbalance score", 1.0),
    "observed_cv": ("observed imbalance (CV)", 1.0),
}


def sweep_figure(shown: Figure) -> go.Figure | None:
    """Draw a figure's panels side by side, a colour a routing; None where it has no panel."""
    if not shown.panels:
        return None
    names = list(dict.fromkeys(row["routing"] for panel in shown.panels for row in panel.rows))
    traces: list[Any] = []
    for number, panel in enumerate(shown.panels, start=1):
        for place, name in enumerate(names):
            rows = [row for row in panel.rows if row["routing"] == name and row["kept"]]
            trace = _trace(rows, panel, name, ARMS[place % len(ARMS)], shown.is_scatter)
            trace.update(**axes(number), legendgroup=name, showlegend=number == 1)
            traces.append(trace)
    drawn = figure(traces, _HEIGHT_PX, margin={"l": 8, "r": 12, "t": 64, "b": 44})
    _place(drawn, shown.panels)
    return drawn


def _trace(
    rows: Sequence[dict[str, Any]], panel: Panel, name: str, colour: str, is_scatter: bool
) -> go.Scatter:
    scale = AXES[panel.y][1]
    ys = [row["y"] * scale for row in rows]
    bars = {
        "type": "data",
        "symmetric": False,
        "array": [row["high"] * scale - y for row, y in zip(rows, ys, strict=True)],
        "arrayminus": [y - row["low"] * scale for row, y in zip(rows, ys, strict=True)],
        "thickness": 1,
        "visible": not is_scatter,
    }
    return go.Scatter(
        name=label(str(name)),
        mode="markers" if is_scatter else "lines+markers",
        x=[row["x"] for row in rows],
        y=ys,
        error_y=bars,
        marker={"color": colour, "size": 8},
        line={"color": colour, "width": 2},
        hovertemplate=f"%{{x}}: %{{y:.4~g}}<extra>{text(str(name))}</extra>",
    )


def _place(drawn: go.Figure, panels: Sequence[Panel]) -> None:
    width = (1 - _GAP * (len(panels) - 1)) / len(panels)
    for number, panel in enumerate(panels, start=1):
        start = (number - 1) * (width + _GAP)
        is_setting = panel.x.startswith("max_")
        ticks = sorted({row["x"] for row in panel.rows})
        steps = {"type": "log", "tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}
        drawn.update_layout(
            {
                axis_name("x", number): {
                    "domain": [start, min(start + width, 1.0)],
                    "anchor": axes(number)["yaxis"],
                    "title": {"text": AXES[panel.x][0]},
                    **(steps if is_setting else {}),
                },
                axis_name("y", number): {
                    "anchor": axes(number)["xaxis"],
                    "title": {"text": AXES[panel.y][0]},
                    "rangemode": "tozero" if is_setting else "normal",
                },
            }
        )
        removed = f", {panel.removed} removed" if panel.removed else ""
        add_title(drawn, f"({'abcdef'[number - 1]}){removed}", x=start, y=_TITLE_AT)
