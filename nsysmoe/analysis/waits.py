"""Why ranks waited for one another, in one trace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from nsysmoe.errors import MissingDataError
from nsysmoe.trace import open_trace

if TYPE_CHECKING:
    from pathlib import Path

    from nsysmoe.classes import ClassMap
    from nsysmoe.findings import Finding

By = Literal["cause", "phase", "layer", "rank", "collective"]
_KEYS: dict[By, tuple[str, ...]] = {
    "cause": (),
    "phase": ("phase",),
    "layer": ("layer",),
    "rank": ("late_process", "late_device"),
    "collective": ("collective",),
}


@dataclass(frozen=True)
class Waits:
    """Waiting by cause; times in ns.

    Attributes:
        source: The file.
        by: What one row of ``rows`` is.
        whole: ``collectives``, ``wait_ns`` and each cause, over all.
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
    path: str | Path,
    by: By = "cause",
    *,
    class_map: ClassMap | None = None,
    nsys: str | None = None,
) -> Waits:
    """Split the waiting of every matched collective by what made the last rank late.

    Raises:
        MissingDataError: No collective could be paired across ranks.
        NsysmoeError: The input cannot be used.
    """
    with open_trace(path, class_map=class_map, nsys=nsys) as trace:
        trace.read_ahead(("wait_ledger", None), ("collective_steps", None), ("moe_launches", None))
        ledger = trace.frame("wait_ledger")
        steps = trace.frame("collective_steps", ("kernel_id", "phase"))
        launches = trace.frame("moe_launches", ("global_pid", "device_id", "layer", "start_ns"))
        findings = trace.findings()
    if ledger.is_empty():
        raise MissingDataError(
            f"{path} has no waiting to explain: no collective could be paired across ranks; "
            "`nsysmoe collectives` says why"
        )

    from nsysmoe.metrics.waits import (  # noqa: PLC0415 - imports polars
        waits_by_cause,
        waits_with_phases,
        with_layer,
        with_phase,
    )

    known = with_layer(with_phase(ledger, steps), launches).rename(
        {
            "function": "collective",
            "late_process_id": "late_process",
            "late_device_id": "late_device",
        }
    )
    whole = waits_with_phases(known)
    phases = whole.pop("phases")
    keys = _KEYS[by]
    rows = waits_by_cause(known, keys).to_dicts() if keys else []
    return Waits(str(path), by, whole, phases, tuple(rows), tuple(findings))
