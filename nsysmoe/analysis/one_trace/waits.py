"""Why ranks waited for one another, in one trace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from nsysmoe.analysis.reading.arrivals import (
    MET,
    known_clocks,
    total_uncertainty,
    unsure_waits,
    waits_of_files,
)
from nsysmoe.analysis.reading.gathering import only_run
from nsysmoe.analysis.reading.hosts import with_host
from nsysmoe.errors import MissingDataError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import polars as pl

    from nsysmoe.analysis.reading.gathering import Gathering
    from nsysmoe.classes import ClassMap
    from nsysmoe.export.files import Source
    from nsysmoe.findings import Finding
    from nsysmoe.trace import Trace

By = Literal["cause", "phase", "layer", "rank", "collective"]
_KEYS: dict[By, tuple[str, ...]] = {
    "cause": (),
    "phase": ("phase",),
    "layer": ("layer",),
    # Processes of two hosts may share a number.
    "rank": ("late_global_pid", "late_process", "late_device"),
    "collective": ("collective",),
}
# What each asks of a waiting collective beside its sums; of ten million kernels it is a row for
# each of two million.
_MORE: dict[By, tuple[str, ...]] = {
    "cause": (),
    "phase": (),
    "layer": ("global_pid", "device_id", "start_ns"),
    "rank": ("late_global_pid", "late_process_id", "late_device_id"),
    "collective": ("function",),
}
_SUMMED = (
    "kernel_id", "wait_ns", "moe_ns", "other_kernels_ns", "host_ns", "other_gap_ns",
    "previous_end_ns", "residual_ns",
)  # fmt: skip
_PHASES = ("kernel_id", "phase")
_LAUNCHED = ("global_pid", "device_id", "layer", "start_ns")
_NAMES = {
    "function": "collective",
    "late_process_id": "late_process",
    "late_device_id": "late_device",
}


@dataclass(frozen=True)
class Waits:
    """Waiting by cause; times in ns.

    Attributes:
        source: The file.
        by: What one row of ``rows`` is.
        whole: ``collectives``, ``wait_ns`` and each cause, over all; of several files
            ``wait_uncertainty_ns`` as well.
        phases: The same by phase.
        rows: The same by ``by``, with its key; empty for ``cause``.
        findings: What was odd about the file.
    """

    source: str
    by: By
    whole: dict[str, Any]
    phases: dict[str, dict[str, Any]]
    rows: tuple[dict[str, Any], ...]
    findings: tuple[Finding, ...]


def waits(
    path: Source,
    by: By = "cause",
    *,
    class_map: ClassMap | None = None,
    nsys: str | None = None,
    gathering: Gathering | None = None,
) -> Waits:
    """Split the waiting of every matched collective by what made the last rank late.

    Raises:
        MissingDataError: No collective could be paired across ranks.
        NsysmoeError: The input cannot be used.
    """
    run = only_run(path, gathering, class_map=class_map, nsys=nsys)
    with run.opened(class_map=class_map, nsys=nsys) as trace:
        read = _read(trace, by)
    return _told(str(run.path), by, read)


def waits_and_transfer(path: Source, *, nsys: str | None = None) -> tuple[Waits, int]:
    """Return what ``waits`` does by cause, and the transfer of all collectives, ns.

    A report is exported once for both.

    Raises:
        MissingDataError: No collective could be paired across ranks.
        NsysmoeError: The input cannot be used.
    """
    run = only_run(path, nsys=nsys)
    with run.opened(nsys=nsys) as trace:
        read = _read(trace, "cause")
        transfer_ns = trace.frame("collective_totals", ("transfer_ns",))["transfer_ns"].sum()
    return _told(str(run.path), "cause", read), int(transfer_ns)


class _Read(NamedTuple):
    """What is read of a trace for its waits; clocks and meetings of several files alone."""

    known: pl.DataFrame
    clocks: pl.DataFrame | None
    across: pl.DataFrame | None
    findings: list[Finding]
    hosts: Mapping[int, str]


def _read(trace: Trace, by: By) -> _Read:
    known = _ledger(trace, by)
    if not trace.members:
        return _Read(known, None, None, trace.findings(), trace.hosts)
    clocks = known_clocks(trace)
    across = waits_of_files(trace, trace.frame("matched_collectives", MET))
    return _Read(known, clocks, across, trace.findings(), trace.hosts)


def _told(source: str, by: By, read: _Read) -> Waits:
    known, clocks, across, findings, hosts = read
    if known.is_empty():
        raise MissingDataError(
            f"{source} has no waiting to explain: no collective could be paired across ranks; "
            "`nsysmoe collectives` says why"
        )

    from nsysmoe.metrics.kernel_time.waits import (  # noqa: PLC0415 - imports polars
        waits_by_cause,
        waits_with_phases,
    )

    if clocks is not None:
        findings += unsure_waits(known["wait_ns"], clocks, source)
    keys = _KEYS[by]
    if across is not None:
        of_each = known.select("kernel_id", *dict.fromkeys(("phase", *keys)))
        # The meeting's own columns are the kernel's.
        across = across.drop(set(keys) & set(across.columns)).join(of_each, on="kernel_id")
        findings += total_uncertainty(across, int(known["wait_ns"].sum()), source)
    whole = waits_with_phases(known, across)
    phases = whole.pop("phases")
    rows = _rows(waits_by_cause(known, keys, across), hosts) if keys else []
    return Waits(source, by, whole, phases, tuple(rows), tuple(findings))


def _ledger(trace: Trace, by: By) -> pl.DataFrame:
    """Return waits with their phase and what ``by`` asks: sums alone where those will do."""
    from nsysmoe.metrics.kernel_time.waits import (  # noqa: PLC0415 - imports polars
        with_known_phase,
        with_layer,
        with_phase,
    )

    if not trace.members and not _MORE[by]:
        return with_known_phase(trace.frame("wait_causes"))
    columns = (*_SUMMED, *_MORE[by])
    trace.read_ahead(
        ("wait_ledger", columns),
        ("collective_steps", _PHASES),
        *((("moe_launches", _LAUNCHED),) if by == "layer" else ()),
    )
    ledger = trace.frame("wait_ledger", columns)
    known = with_phase(ledger, trace.frame("collective_steps", _PHASES))
    if by == "layer":
        known = with_layer(known, trace.frame("moe_launches", _LAUNCHED))
    return known.rename(_NAMES, strict=False)


def _rows(frame: pl.DataFrame, hosts: Mapping[int, str]) -> list[dict[str, Any]]:
    """Return rows with the host of the rank that was waited for, where there are several."""
    process = "late_global_pid"
    if process not in frame.columns:
        return frame.to_dicts()
    # A cause is called host, too.
    named = with_host(frame, hosts, process, "late_host").drop(process)
    if hosts:
        others = [name for name in named.columns if name != "late_host"]
        named = named.select("late_host", *others)
    return named.to_dicts()
