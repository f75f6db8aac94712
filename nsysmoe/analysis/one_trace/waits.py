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

By = Literal["cause", "phase", "layer", "rank", "collective"]
_KEYS: dict[By, tuple[str, ...]] = {
    "cause": (),
    "phase": ("phase",),
    "layer": ("layer",),
    # Processes of two hosts may share a number.
    "rank": ("late_global_pid", "late_process", "late_device"),
    "collective": ("collective",),
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
        trace.read_ahead(("wait_ledger", None), ("collective_steps", None), ("moe_launches", None))
        ledger = trace.frame("wait_ledger")
        clocks = known_clocks(trace) if trace.members else None
        across = (
            waits_of_files(trace, trace.frame("matched_collectives", MET))
            if trace.members
            else None
        )
        steps = trace.frame("collective_steps", ("kernel_id", "phase"))
        launches = trace.frame("moe_launches", ("global_pid", "device_id", "layer", "start_ns"))
        findings, hosts = trace.findings(), trace.hosts
    if ledger.is_empty():
        raise MissingDataError(
            f"{run.path} has no waiting to explain: no collective could be paired across ranks; "
            "`nsysmoe collectives` says why"
        )

    from nsysmoe.metrics.kernel_time.waits import (  # noqa: PLC0415 - imports polars
        waits_by_cause,
        waits_with_phases,
        with_layer,
        with_phase,
    )

    source = str(run.path)
    if clocks is not None:
        findings += unsure_waits(ledger["wait_ns"], clocks, source)
    known = with_layer(with_phase(ledger, steps), launches).rename(
        {
            "function": "collective",
            "late_process_id": "late_process",
            "late_device_id": "late_device",
        }
    )
    keys = _KEYS[by]
    if across is not None:
        of_each = known.select("kernel_id", *dict.fromkeys(("phase", *keys)))
        # The meeting's own columns are the kernel's.
        across = across.drop(set(keys) & set(across.columns)).join(of_each, on="kernel_id")
        findings += total_uncertainty(across, int(ledger["wait_ns"].sum()), source)
    whole = waits_with_phases(known, across)
    phases = whole.pop("phases")
    rows = _rows(waits_by_cause(known, keys, across), hosts) if keys else []
    return Waits(source, by, whole, phases, tuple(rows), tuple(findings))


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
