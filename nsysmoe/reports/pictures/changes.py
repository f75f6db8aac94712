"""Table 1's changes with what is known of their uncertainty."""

from __future__ import annotations

from typing import TYPE_CHECKING

import plotly.graph_objects as go

from nsysmoe.metrics.kernel_time.table1 import METRICS, TABLE_1
from nsysmoe.reports import numbers
from nsysmoe.reports.pictures.look import GREEN, GREY, VERMILION, figure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nsysmoe.analysis.comparing.comparison import Change

_ROW_PX = 34


_BETTER = "better: the interval excludes 0"
_WORSE = "worse: the interval excludes 0"
_OPEN = "may be no change: the interval includes 0"
_UNKNOWN = "no interval"
_LOOKS = {
    _BETTER: (GREEN, "circle"),
    _WORSE: (VERMILION, "square"),
    _OPEN: (GREY, "diamond"),
    _UNKNOWN: (GREY, "circle-open"),
}


def change_intervals(changes: Sequence[Change]) -> go.Figure | None:
    """Draw each Table 1 metric's change with its interval; better is to the left.

    None where no Table 1 metric has a change.
    """
    order = [metric.key for metric in TABLE_1]
    shown = [change for change in changes if change.metric in order and change.change is not None]
    if not shown:
        return None
    shown.sort(key=lambda change: order.index(change.metric))
    drawn = figure(
        [
            _points([(row, c) for row, c in enumerate(shown) if _certainty(c) == name], name)
            for name in _LOOKS
            if any(_certainty(change) == name for change in shown)
        ],
        _ROW_PX * len(shown) + 120,
        hovermode="closest",
    )
    drawn.update_xaxes(title="change, % (left of 0 is better)", zeroline=False, ticksuffix=" %")
    drawn.update_yaxes(
        tickvals=list(range(len(shown))),
        ticktext=[_title(change.metric) for change in shown],
        range=[len(shown) - 0.5, -0.5],
        zeroline=False,
    )
    drawn.add_vline(x=0, line={"color": GREY, "width": 1.5, "dash": "dot"})
    return drawn


def _interval(change: Change) -> tuple[float, float] | None:
    return None if change.interval is None else (change.interval.low, change.interval.high)


def _certainty(change: Change) -> str:
    if (interval := _interval(change)) is None:
        return _UNKNOWN
    low, high = interval
    if low <= 0 <= high:
        return _OPEN
    return _BETTER if high < 0 else _WORSE


def _points(rows: Sequence[tuple[int, Change]], name: str) -> go.Scatter:
    colour, symbol = _LOOKS[name]
    changes = [change.change or 0.0 for _, change in rows]
    spans = [_interval(change) for _, change in rows]
    # Where one point of a trace has an interval, all have: it is what the trace is called for.
    known = [(*span, at) for span, at in zip(spans, changes, strict=True) if span is not None]
    return go.Scatter(
        name=name,
        mode="markers",
        x=[_percent(value) for value in changes],
        y=[row for row, _ in rows],
        error_x={
            "visible": bool(known),
            "array": [_percent(high - at) for _, high, at in known],
            "arrayminus": [_percent(at - low) for low, _, at in known],
            "color": colour,
            "thickness": 2,
            "width": 5,
        },
        marker={
            "color": colour,
            "symbol": symbol,
            "size": 10,
            "line": {"color": colour, "width": 1.5},
        },
        text=[_hover(change) for _, change in rows],
        hovertemplate="%{text}<extra></extra>",
    )


def _hover(change: Change) -> str:
    text = f"{_title(change.metric)}: {numbers.change(change.change)}"
    if (interval := _interval(change)) is not None:
        low, high = map(numbers.change, interval)
        text += f"<br>interval {low} to {high}"
    return text


def _title(key: str) -> str:
    metric = next(metric for metric in METRICS if metric.key == key)
    return f"MoE {metric.label}" if metric.group == "moe_kernel" else metric.label


def _percent(ratio: float) -> float:
    return round(ratio * 100, 3)
