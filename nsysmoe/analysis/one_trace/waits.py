"""Why ranks waited for one another, in one trace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

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
        known = _ledger(trace, by)
        clocks = known_clocks(trace) if trace.members else None
        across = (
            waits_of_files(trace, trace.frame("matched_collectives", MET))
            if trace.members
            else None
        )
        findings, hosts = trace.findings(), trace.hosts
    if known.is_empty():
        raise MissingDataError(
            f"{run.path} has no waiting to explain: no collective could be paired across ranks; "
            "`nsysmoe collectives` says why"
        )

    from nsysmoe.metrics.kernel_time.waits import (  # noqa: PLC0415 - imports polars
        waits_by_cause,
        waits_with_phases,
    )

    source = str(run.path)
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
