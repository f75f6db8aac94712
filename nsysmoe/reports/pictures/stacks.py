"""Stacked bars: what time is made of, by GPU, by phase, and in communication."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from nsysmoe.reports.pictures.look import (
    BLUE,
    FAINT,
    GREY,
    ORANGE,
    SKY,
    VERMILION,
    figure,
    label,
    milliseconds,
    place,
    text,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nsysmoe.analysis.comparing.portrait import Portrait, Rows

_BAR_PX, _THINNEST_BAR_PX, _MOST_BARS_PX = 26, 13, 1200
_LONGEST_ARM = 18
_MEAN = "mean"


@dataclass(frozen=True)
class Part:
    """One part of each bar: the column that holds it, its name, and its fill."""

    key: str
    name: str
    colour: str
    pattern: str = ""


@dataclass(frozen=True)
class _Bar:
    """One bar: what it stands with, whose it is, and its columns."""

    group: str
    arm: str
    row: dict[str, Any]


WINDOW_PARTS = (
    Part("moe_ns", "MoE", BLUE),
    Part("other_compute_ns", "other compute", SKY),
    Part("exposed_transfer_ns", "transfer, exposed", ORANGE),
    Part("exposed_wait_ns", "wait, exposed", VERMILION),
    Part("exposed_unmatched_ns", "communication, unmatched", GREY, "x"),
    Part("copy_ns", "copy", GREY),
    Part("idle_ns", "idle", FAINT, "/"),
)
PHASE_PARTS = (
    Part("mean_ns", "mean of ranks", BLUE),
    Part("excess_ns", "excess of the slowest rank", VERMILION),
)
_COMMUNICATION_PARTS = (
    Part("transfer_ns", "transfer", ORANGE),
    Part("wait_ns", "wait", VERMILION),
    Part("unmatched_ns", "unmatched", GREY, "/"),
)


def where_time_went(portraits: Sequence[Portrait]) -> go.Figure | None:
    """Draw what each GPU's window was spent on, below the mean over an arm's GPUs.

    None where no portrait has ``time_use``.
    """
    means = [
        _Bar(_MEAN, arm.label, mean_time_use(arm.time_use)) for arm in portraits if arm.time_use
    ]
    # The mean of one GPU is that GPU.
    several = any(len(arm.time_use) > 1 for arm in portraits)
    each = _bars(portraits, lambda arm: arm.time_use, place) if several else []
    return _stacked(means + each, WINDOW_PARTS, "ms of the window")


def critical_by_phase(portraits: Sequence[Portrait]) -> go.Figure | None:
    """Draw each phase's critical MoE time: the mean of ranks, and what the slowest one adds.

    None where no portrait has ``phases``.
    """
    bars = _bars(portraits, lambda arm: arm.phases, lambda row: str(row["phase"]))
    return _stacked(bars, PHASE_PARTS, "critical MoE time, ms")


def wait_and_transfer(portraits: Sequence[Portrait]) -> go.Figure | None:
    """Draw each rank's time in collectives: moving data, and waiting for the last to come.

    None where no portrait has ``communication``.
    """
    bars = _bars(portraits, lambda arm: arm.communication, place)
    return _stacked(bars, _COMMUNICATION_PARTS, "time in collectives, ms")


def mean_time_use(rows: Rows) -> dict[str, Any]:
    """Return the mean over GPUs of each part of the window; None where one of them is unknown."""
    means: dict[str, Any] = {}
    for key in (*(part.key for part in WINDOW_PARTS), "window_ns"):
        values = [row.get(key) for row in rows]
        known = [value for value in values if value is not None]
        means[key] = sum(known) / len(known) if known and len(known) == len(values) else None
    return means


def _bars(
    portraits: Sequence[Portrait],
    rows: Callable[[Portrait], Rows],
    group: Callable[[dict[str, Any]], str],
) -> list[_Bar]:
    """Return the arms' bars, those of one group side by side."""
    bars = [_Bar(group(row), arm.label, row) for arm in portraits for row in rows(arm)]
    order = list(dict.fromkeys(bar.group for bar in bars))
    return sorted(bars, key=lambda bar: order.index(bar.group))


def _stacked(bars: Sequence[_Bar], parts: Sequence[Part], title: str) -> go.Figure | None:
    if not bars:
        return None
    # By position, not by label: two shortened names may read the same.
    places = _positions([bar.group for bar in bars])
    used = [part for part in parts if any(bar.row.get(part.key) for bar in bars)]
    each = max(_THINNEST_BAR_PX, min(_BAR_PX, _MOST_BARS_PX / len(bars)))
    drawn = figure(
        [_part(bars, part, parts, places) for part in used],
        # For the axis, and for three lines of a legend where the screen is narrow.
        44 + 76 + each * (places[-1] + 1.2),
        barmode="stack",
        bargap=0.22,
    )
    drawn.update_xaxes(title=title, rangemode="tozero")
    drawn.update_yaxes(
        range=[places[-1] + 0.6, -0.6],
        tickvals=places,
        ticktext=[f"{label(bar.group)} · {label(bar.arm, _LONGEST_ARM)}" for bar in bars],
        showgrid=False,
        zeroline=False,
    )
    return drawn


def _part(
    bars: Sequence[_Bar], part: Part, parts: Sequence[Part], places: Sequence[float]
) -> go.Bar:
    return go.Bar(
        name=part.name,
        orientation="h",
        y=list(places),
        x=[milliseconds(bar.row.get(part.key)) for bar in bars],
        text=[_hover(bar, part, parts) for bar in bars],
        textposition="none",
        marker={
            "color": part.colour,
            "line": {"width": 0},
            "pattern": {"shape": part.pattern, "fgcolor": GREY, "size": 6, "solidity": 0.2},
        },
        hovertemplate="%{text}<extra>" + part.name + "</extra>",
    )


def _positions(groups: Sequence[str]) -> list[float]:
    """Return where bars stand: half a bar of space between two groups."""
    places, at = [], 0.0
    for number, group in enumerate(groups):
        if number:
            at += 1 if group == groups[number - 1] else 1.5
        places.append(at)
    return places


def _hover(bar: _Bar, part: Part, parts: Sequence[Part]) -> str:
    value = bar.row.get(part.key) or 0
    whole = sum(bar.row.get(each.key) or 0 for each in parts)
    share = f", {value / whole:.1%} of {whole / 1e6:,.3f} ms" if whole else ""
    return f"{text(bar.group)}, {text(bar.arm)}<br>{value / 1e6:,.3f} ms{share}"
