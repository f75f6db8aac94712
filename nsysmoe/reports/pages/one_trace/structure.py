"""Waiting, balance and phases of one trace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nsysmoe.analysis.reading.attribution import attribution_text
from nsysmoe.reports import numbers
from nsysmoe.reports.document import Column, Document, Row, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nsysmoe.analysis.one_trace.structure import Measured

    Spec = tuple[str, str, Callable[[Any], str]]


def _text(value: Any) -> str:
    return numbers.UNKNOWN if value is None else str(value)


_COLLECTIVES: tuple[Spec, ...] = (
    ("collective", "Collective", _text),
    ("process", "Process", _text),
    ("device", "Device", _text),
    ("matched", "Matched", numbers.count),
    ("unmatched", "Unmatched", numbers.count),
    ("total_ns", "Total (ms)", numbers.milliseconds),
    ("transfer_ns", "Transfer (ms)", numbers.milliseconds),
    ("wait_ns", "Wait (ms)", numbers.milliseconds),
    ("arrived_last", "Arrived last", numbers.count),
)
_IMBALANCE: tuple[Spec, ...] = (
    ("cells", "Cells", numbers.count),
    ("p50", "p50", lambda value: f"{value:.3f}"),
    ("p95", "p95", lambda value: f"{value:.3f}"),
    ("max", "Max", lambda value: f"{value:.3f}"),
    ("weighted_p50", "p50 by time", lambda value: f"{value:.3f}"),
    ("weighted_p95", "p95 by time", lambda value: f"{value:.3f}"),
    ("critical_ns", "Critical (ms)", numbers.milliseconds),
    ("mean_ns", "Mean (ms)", numbers.milliseconds),
    ("excess_ns", "Excess (ms)", numbers.milliseconds),
    ("critical_over_mean", "Critical / mean", lambda value: f"{value:.3f}"),
)
_SLOWEST: tuple[Spec, ...] = (
    ("slowest_rank", "Slowest rank", _text),
    ("slowest_share", "In", numbers.share),
)
_PHASES: tuple[Spec, ...] = (
    ("phase", "Phase", _text),
    ("steps", "Steps", numbers.count),
    ("launches", "MoE launches", numbers.count),
    ("moe_total_ns", "MoE total (ms)", numbers.milliseconds),
    ("critical_ns", "MoE critical (ms)", numbers.milliseconds),
    ("tokens", "Tokens", numbers.count),
)


def collectives_page(measured: Measured, by: str | None) -> Document:
    """Return one row a communication kernel and device, or communicator as well."""
    spec = ((by, by.capitalize(), _text), *_COLLECTIVES) if by else _COLLECTIVES
    if any("host" in row for row in measured.rows):
        spec = (*spec[: 1 + bool(by)], ("host", "Host", _text), *spec[1 + bool(by) :])
    if any("wait_uncertainty_ns" in row for row in measured.rows):
        place = next(n for n, (key, *_) in enumerate(spec) if key == "wait_ns") + 1
        unsure = ("wait_uncertainty_ns", "± clocks (ms)", numbers.milliseconds)
        spec = (*spec[:place], unsure, *spec[place:])
    note = (
        "Wait: own start to the last rank's. Transfer: the last rank's start to the first end. "
        "Kernels are paired across ranks by communicator, name and order."
    )
    return _page(measured, "Communication of", spec, note)


def imbalance_page(measured: Measured, by: str | None) -> Document:
    """Return balance overall, or one row for each value of ``by``."""
    spec = ((by, by.capitalize(), _text), *_IMBALANCE) if by else _IMBALANCE
    if by == "layer":
        spec = (*spec, *_SLOWEST)
    note = (
        "A cell is one MoE product of one layer in one step; percentiles are of slowest rank / "
        f"mean. Critical = mean + excess. {_told(measured)}"
    )
    page = _page(measured, "Balance of", spec, note)
    if by:
        return page
    return Document(**{**page.__dict__, "data": measured.rows[0]})


def phases_page(measured: Measured) -> Document:
    """Return one row a phase."""
    note = (
        f"Steps are those of one rank. Critical: the slowest rank of each cell. {_told(measured)}"
    )
    return _page(measured, "Phases of", _PHASES, note)


def _told(measured: Measured) -> str:
    if measured.attribution is None:
        return ""
    told = attribution_text(measured.attribution)
    return f"{told[0].upper()}{told[1:]}."


def _page(measured: Measured, what: str, spec: Sequence[Spec], note: str) -> Document:
    text_columns = {"collective", "host", "phase", "gemm"}
    columns = tuple(
        Column(title, "left" if key in text_columns else "right") for key, title, _ in spec
    )
    rows = tuple(Row(tuple(show(row[key]) for key, _, show in spec)) for row in measured.rows)
    caption = f"{what} {measured.source}"
    return Document(
        title=caption,
        tables=(Table(caption, columns, rows),),
        data=list(measured.rows),
        records=tuple({key: row[key] for key, _, _ in spec} for row in measured.rows),
        findings=measured.findings,
        notes=(note,),
    )
