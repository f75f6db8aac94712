"""What a placement changes: loads of devices before and after, and what a step waits for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import plotly.graph_objects as go

from nsysmoe.reports.pictures.look import (
    ARMS,
    BLUE,
    FAINT,
    ORANGE,
    VERMILION,
    add_title,
    axes,
    axis_name,
    figure,
    text,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Loads = Mapping[str, Sequence[Sequence[float]]]

_ROW_PX, _FRAME_PX, _MOST_PX = 18, 120, 1200
_BETWEEN = 0.06
# Shares that differ from 1 by less are pale.
_LEAST_REACH = 0.05
_COLOURS = [[0, BLUE], [0.5, "#f7f7f7"], [1, VERMILION]]
_BAR_PX = 26


def heatmaps(loads: Loads, across: str, down: str) -> go.Figure | None:
    """Draw loads relative to the mean of their row, side by side on one scale.

    None where there is no load.

    Args:
        loads: By name, one list a row.
        across: What a column is.
        down: What a row is.
    """
    shares = {name: [_shares(row) for row in rows] for name, rows in loads.items()}
    known = [
        value for rows in shares.values() for row in rows for value in row if value is not None
    ]
    if not known:
        return None
    reach = max(_LEAST_REACH, *(abs(value - 1) for value in known))
    drawn = figure(
        [
            go.Heatmap(
                **axes(number),
                x=[str(column) for column in range(len(rows[0]))],
                y=[str(row) for row in range(len(rows))],
                z=rows,
                zmin=1 - reach,
                zmax=1 + reach,
                colorscale=_COLOURS,
                showscale=number == 1,
                colorbar={"title": {"text": "× mean"}},
                hovertemplate=f"{down} %{{y}}, {across} %{{x}}: %{{z:.3f}} × mean"
                f"<extra>{text(name)}</extra>",
            )
            for number, (name, rows) in enumerate(shares.items(), start=1)
        ],
        min(_MOST_PX, _FRAME_PX + _ROW_PX * max(4, *map(len, shares.values()))),
        margin={"l": 8, "r": 12, "t": 30, "b": 44},
    )
    drawn.update_xaxes(title=across, type="category")
    drawn.update_yaxes(type="category", autorange="reversed", showticklabels=False)
    width = (1 - _BETWEEN * (len(shares) - 1)) / len(shares)
    for number, name in enumerate(shares, start=1):
        begin = (number - 1) * (width + _BETWEEN)
        layout = {"domain": [begin, begin + width], "anchor": axes(number)["yaxis"]}
        drawn.update_layout({axis_name("x", number): layout})
        drawn.update_layout({axis_name("y", number): {"anchor": axes(number)["xaxis"]}})
        add_title(drawn, text(name), x=begin, y=1)
    drawn.update_layout(yaxis={"showticklabels": True, "title": down})
    return drawn


def _shares(row: Sequence[float]) -> list[float | None]:
    whole = sum(row)
    return [round(value * len(row) / whole, 4) if whole else None for value in row]


def busiest(loads: Loads) -> go.Figure | None:
    """Draw the busiest device of each layer over the mean, a bar a placement.

    None where there is no load.

    Args:
        loads: By name, the loads of devices, one list a layer.
    """
    if not any(map(sum, (row for rows in loads.values() for row in rows))):
        return None
    drawn = figure(
        [
            go.Bar(
                name=text(name),
                marker={"color": colour},
                x=list(range(len(rows))),
                y=[round(max(row) * len(row) / sum(row), 4) if sum(row) else None for row in rows],
                hovertemplate="layer %{x}: %{y:.3f} × perfect balance"
                f"<extra>{text(name)}</extra>",
            )
            for (name, rows), colour in zip(loads.items(), ARMS, strict=False)
        ],
        300,
        margin={"l": 8, "r": 12, "t": 34, "b": 44},
    )
    drawn.update_xaxes(title="layer", type="category")
    drawn.update_yaxes(title="busiest GPU / mean", rangemode="tozero")
    return drawn


def critical_bars(rows: Sequence[tuple[str, str, float, float]]) -> go.Figure | None:
    """Draw what steps wait for, by placement: what balance would leave, and what it adds.

    None without rows.

    Args:
        rows: Group, placement, mean of devices and excess of the slowest, both in ms.
    """
    if not rows:
        return None
    places = [[text(row[0]) for row in rows], [text(row[1]) for row in rows]]
    parts = (
        ("all devices equally fast", [row[2] for row in rows], BLUE),
        ("imbalance adds", [row[3] for row in rows], ORANGE),
    )
    drawn = figure(
        [
            go.Bar(
                name=name,
                orientation="h",
                y=places,
                x=[round(value, 4) for value in values],
                marker={"color": colour},
                hovertemplate="%{y}: %{x:,.3f} ms<extra>" + name + "</extra>",
            )
            for name, values, colour in parts
        ],
        _FRAME_PX + _BAR_PX * len(rows),
        barmode="stack",
        margin={"l": 8, "r": 12, "t": 34, "b": 44},
    )
    drawn.update_xaxes(title="critical MoE time (ms)", rangemode="tozero")
    drawn.update_yaxes(autorange="reversed", dividercolor=FAINT)
    return drawn


def copy_bars(rows: Sequence[tuple[str, float, float]]) -> go.Figure | None:
    """Draw copies between nodes by placement, each once a node and each choice by itself.

    None without rows.

    Args:
        rows: Placement, token copies, choice copies.
    """
    if not rows:
        return None
    parts = (
        ("once a node", [row[1] for row in rows], BLUE),
        ("each choice", [row[2] for row in rows], FAINT),
    )
    drawn = figure(
        [
            go.Bar(
                name=name,
                orientation="h",
                y=[text(row[0]) for row in rows],
                x=[round(value, 4) for value in values],
                marker={"color": colour},
                hovertemplate="%{y}: %{x:.4f} copies<extra>" + name + "</extra>",
            )
            for name, values, colour in parts
        ],
        _FRAME_PX + 2 * _BAR_PX * len(rows),
        margin={"l": 8, "r": 12, "t": 34, "b": 44},
    )
    drawn.update_xaxes(title="copies of a token to other nodes, a layer", rangemode="tozero")
    drawn.update_yaxes(autorange="reversed")
    return drawn
