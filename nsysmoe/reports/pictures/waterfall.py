"""From one arm's wall time to the other's, bound by bound."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from nsysmoe.metrics.kernel_time.causes import bound_changes
from nsysmoe.reports.pictures.look import BLUE, GREEN, GREY, VERMILION, figure, label, milliseconds

if TYPE_CHECKING:
    from collections.abc import Sequence

_ROW_PX = 34
# Changes of this part of the wall time can be seen on an axis that begins at 0.
_LARGE_CHANGE = 0.2
NAMES = {
    "moe": "MoE",
    "other_compute": "other compute",
    "transfer": "transfer",
    "host": "host",
    "sync": "sync",
    "latency": "latency",
    "unexplained": "unexplained",
}


def wall_time_waterfall(
    causes: Sequence[dict[str, Any]], baseline_label: str, candidate_label: str
) -> go.Figure | None:
    """Draw the baseline's wall time, what each bound adds or takes away, and the candidate's.

    None where it is not known where wall time went.

    Args:
        causes: ``Comparison.causes``.
        baseline_label: How to call the first arm.
        candidate_label: How to call the second.
    """
    if not causes:
        return None
    changes = bound_changes(causes)
    names = [label(baseline_label), *(NAMES[bound] for bound in changes), label(candidate_label)]
    before, after = (
        milliseconds(sum(row[key] for row in causes)) or 0.0
        for key in ("baseline_ns", "candidate_ns")
    )
    steps = [milliseconds(change.change_ns) or 0.0 for change in changes.values()]
    unsure = [_half_width(change.interval_ns) for change in changes.values()]
    values = [before, *steps, after]
    drawn = figure(
        [
            go.Waterfall(
                orientation="h",
                measure=["absolute", *["relative"] * len(steps), "total"],
                y=list(range(len(names))),
                x=values,
                text=[f"{before:,.1f}", *map(_signed, steps, unsure), f"{after:,.1f}"],
                textposition="outside",
                textfont={"color": GREY},
                cliponaxis=False,
                decreasing={"marker": {"color": GREEN}},
                increasing={"marker": {"color": VERMILION}},
                totals={"marker": {"color": BLUE}},
                connector={"line": {"color": GREY, "width": 1, "dash": "dot"}},
                customdata=names,
                hovertemplate="%{customdata}: %{text} ms<extra></extra>",
                showlegend=False,
            )
        ],
        _ROW_PX * len(names) + 90,
    )
    low, high = _shown(_edges(before, steps))
    cut = "" if low == 0 else " (the axis does not begin at 0)"
    drawn.update_xaxes(title=f"wall time, ms{cut}", range=[low, high])
    drawn.update_yaxes(
        tickvals=list(range(len(names))),
        ticktext=names,
        range=[len(names) - 0.4, -0.6],
        showgrid=False,
        zeroline=False,
    )
    return drawn


def _shown(edges: Sequence[float]) -> tuple[float, float]:
    """Return the part of the axis to show: without it, small changes of a long time are unseen."""
    span = max(edges) - min(edges)
    if span > _LARGE_CHANGE * max(edges):
        return 0.0, max(edges) * 1.15
    return min(edges) - 0.35 * span, max(edges) + 0.35 * span


def _signed(step: float, unsure: float | None) -> str:
    told = f"{step:+,.1f}" if round(step, 1) else "0.0"
    return told if unsure is None else f"{told} ± {unsure:,.1f}"


def _half_width(interval_ns: tuple[float, float] | None) -> float | None:
    """Return how far an interval reaches to either side, in ms: that of a difference is even."""
    return None if interval_ns is None else milliseconds((interval_ns[1] - interval_ns[0]) / 2)


def _edges(start: float, steps: Sequence[float]) -> list[float]:
    edges = [start]
    for step in steps:
        edges.append(edges[-1] + step)
    return edges
