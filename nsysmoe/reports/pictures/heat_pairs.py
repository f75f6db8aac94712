"""Loads before and after on one scale, and a measure over settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from nsysmoe.reports.pictures.look import BLUE, GREY, VERMILION, figure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_ROW_PX, _FRAME_PX, _MOST_PX = 7, 110, 700
_GAP = 0.04


def heat_pair(loads: Mapping[str, Sequence[Sequence[int]]]) -> go.Figure | None:
    """Draw loads relative to the mean of their layer, a panel each, on one scale.

    None where there is no load.

    Args:
        loads: [layers][experts] by title.
    """
    shares = {name: [_relative(row) for row in rows] for name, rows in loads.items()}
    known = [
        value for rows in shares.values() for row in rows for value in row if value is not None
    ]
    if not known:
        return None
    traces = [
        go.Heatmap(
            z=rows,
            coloraxis="coloraxis",
            xaxis=f"x{place or ''}",
            yaxis=f"y{place or ''}",
            hovertemplate=f"{name}: layer %{{y}}, expert %{{x}}: %{{z:.2f}} × mean<extra></extra>",
        )
        for place, (name, rows) in zip((0, 2), shares.items(), strict=False)
    ]
    layers = len(next(iter(shares.values())))
    drawn = figure(traces, min(_MOST_PX, _FRAME_PX + _ROW_PX * max(24, layers)))
    width = (1 - _GAP) / 2 if len(traces) > 1 else 1.0
    axes: dict[str, Any] = {}
    for place, name in zip((0, 2), shares, strict=False):
        start = (width + _GAP) * (place > 0)
        axes[f"xaxis{place or ''}"] = {
            "domain": [start, start + width],
            "anchor": f"y{place or ''}",
            "title": f"expert: {name}",
        }
        axes[f"yaxis{place or ''}"] = {
            "anchor": f"x{place or ''}", "autorange": "reversed", "title": "" if place else "layer",
            "showticklabels": not place, "tick0": 0, "dtick": -(-layers // 8),
        }  # fmt: skip
    highest = max(1.001, *known)
    drawn.update_layout(
        coloraxis={
            "cmin": 0,
            "cmax": highest,
            # A fair share is white, wherever it lies between nothing and the most.
            "colorscale": [[0, BLUE], [1 / highest, "#f7f7f7"], [1, VERMILION]],
            "colorbar": {"title": {"text": "× mean"}},
        },
        **axes,
    )
    return drawn


def measure_by_setting(
    settings: Sequence[str], values: Mapping[str, Sequence[float | None]], title: str
) -> go.Figure:
    """Draw a line of values over settings for each name; names that end alike look alike.

    Args:
        settings: What stands along the axis.
        values: By the line's name; ``sorted`` in it makes a dotted line.
        title: Of the values' axis.
    """
    colours = {"real": GREY, "as it is": VERMILION, "rerouted": BLUE}
    drawn = figure(
        [
            go.Scatter(
                x=list(settings),
                y=list(line),
                name=name,
                mode="lines+markers",
                line={
                    "color": next((c for part, c in colours.items() if part in name), GREY),
                    "dash": "dot" if ", sorted" in name else "solid",
                },
            )
            for name, line in values.items()
        ],
        320,
    )
    drawn.update_xaxes(title="prompts of a batch × batches", type="category")
    drawn.update_yaxes(title=title, rangemode="tozero")
    return drawn


def _relative(row: Sequence[int]) -> list[float | None]:
    whole = sum(row)
    return [round(value * len(row) / whole, 2) if whole else None for value in row]
