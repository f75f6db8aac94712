"""Waiting, balance and phases of one trace."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nsysmoe.analysis.reading.attribution import attribution_text
from nsysmoe.reports import numbers
from nsysmoe.reports.document import Document
from nsysmoe.reports.tables import UNSURE, UNSURE_TRANSFER, left, right, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nsysmoe.analysis.one_trace.structure import Measured
    from nsysmoe.reports.tables import Shown


def _ratio(value: float) -> str:
    return f"{value:.3f}"


_COLLECTIVES: tuple[Shown, ...] = (
    left("Collective", "collective", numbers.as_is),
    right("Process", "process", numbers.as_is),
    right("Device", "device", numbers.as_is),
    right("Matched", "matched", numbers.count),
    right("Unmatched", "unmatched", numbers.count),
    right("Total (ms)", "total_ns", numbers.milliseconds),
    right("Transfer (ms)", "transfer_ns", numbers.milliseconds),
    right("Wait (ms)", "wait_ns", numbers.milliseconds),
    right("Arrived last", "arrived_last", numbers.count),
)
_IMBALANCE: tuple[Shown, ...] = (
    right("Cells", "cells", numbers.count),
    right("p50", "p50", _ratio),
    right("p95", "p95", _ratio),
    right("Max", "max", _ratio),
    right("p50 by time", "weighted_p50", _ratio),
    right("p95 by time", "weighted_p95", _ratio),
    right("Critical (ms)", "critical_ns", numbers.milliseconds),
    right("Mean (ms)", "mean_ns", numbers.milliseconds),
    right("Excess (ms)", "excess_ns", numbers.milliseconds),
    right("Critical / mean", "critical_over_mean", _ratio),
)
_SLOWEST: tuple[Shown, ...] = (
    right("Slowest rank", "slowest_rank", numbers.as_is),
    right("In", "slowest_share", numbers.share),
)
_PHASES: tuple[Shown, ...] = (
    left("Phase", "phase", numbers.as_is),
    right("Steps", "steps", numbers.count),
    right("MoE launches", "launches", numbers.count),
    right("MoE total (ms)", "moe_total_ns", numbers.milliseconds),
    right("MoE critical (ms)", "critical_ns", numbers.milliseconds),
    right("Tokens", "tokens", numbers.count),
)


def collectives_page(measured: Measured, by: str | None) -> Document:
    """Return one row a communication kernel and device, or communicator as well."""
    spec = (right(by.capitalize(), by, numbers.as_is), *_COLLECTIVES) if by else _COLLECTIVES
    if any("host" in row for row in measured.rows):
        spec = (*spec[: 1 + bool(by)], left("Host", "host", numbers.as_is), *spec[1 + bool(by) :])
    for of, unsure in (("transfer_ns", UNSURE_TRANSFER), ("wait_ns", UNSURE)):
        if any(unsure.of in row for row in measured.rows):
            place = next(n for n, shown in enumerate(spec) if shown.of == of) + 1
            spec = (*spec[:place], unsure, *spec[place:])
    note = (
        "Wait: own start to the last rank's. Transfer: the last rank's start to the first end. "
        "Kernels are paired across ranks by communicator, name and order."
    )
    return _page(measured, "Communication of", spec, note)


def imbalance_page(measured: Measured, by: str | None) -> Document:
    """Return balance overall, or one row for each value of ``by``."""
    spec = (_key(by), *_IMBALANCE) if by else _IMBALANCE
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


def _key(by: str) -> Shown:
    side = left if by in {"phase", "gemm"} else right
    return side(by.capitalize(), by, numbers.as_is)


def _page(measured: Measured, what: str, columns: Sequence[Shown], note: str) -> Document:
    caption = f"{what} {measured.source}"
    keys = [one.of for one in columns if isinstance(one.of, str)]
    return Document(
        title=caption,
        tables=(table(caption, measured.rows, columns),),
        data=list(measured.rows),
        records=tuple({key: row[key] for key in keys} for row in measured.rows),
        findings=measured.findings,
        notes=(note,),
    )
