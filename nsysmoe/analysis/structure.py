"""What the totals hide: waiting, balance across ranks, and phases, for one trace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from nsysmoe.errors import MissingDataError
from nsysmoe.findings import Finding
from nsysmoe.trace import open_trace

if TYPE_CHECKING:
    from pathlib import Path

    import polars as pl

    from nsysmoe.classes import ClassMap
    from nsysmoe.trace import Trace

_PHASED = ("phase", "dur_ns")
_PAIRED = (
    "function",
    "global_pid",
    "process_id",
    "device_id",
    "is_matched",
    "dur_ns",
    "wait_ns",
    "transfer_ns",
    "is_last",
)
ImbalanceBy = Literal["layer", "phase", "step", "gemm"]


@dataclass(frozen=True)
class Measured:
    """Rows that answer one question about one trace; times in ns, null where unknown."""

    source: str
    rows: tuple[dict[str, Any], ...]
    findings: tuple[Finding, ...]


def collectives(
    path: str | Path, *, class_map: ClassMap | None = None, nsys: str | None = None
) -> Measured:
    """Return transfer and waiting of each communication kernel and device.

    Rows hold what ``metrics.collectives.collective_times`` returns.

    Raises:
        NsysmoeError: The input cannot be used.
    """
    with open_trace(path, class_map=class_map, nsys=nsys) as trace:
        events = trace.frame("matched_collectives", _PAIRED)
        findings = trace.findings()

    from nsysmoe.metrics.collectives import collective_times  # noqa: PLC0415 - imports polars

    rows = collective_times(events).to_dicts()
    return Measured(str(path), tuple(rows), (*_unmatched(str(path), rows), *findings))


def imbalance(
    path: str | Path,
    by: ImbalanceBy | None = None,
    *,
    class_map: ClassMap | None = None,
    nsys: str | None = None,
) -> Measured:
    """Return how unequal MoE work is across ranks; one row, or one for each value of ``by``.

    Rows hold what ``metrics.imbalance.imbalance`` returns, and ``attribution``: how steps are
    known (``nvtx`` or None) and the share of MoE time that belongs to one.

    Raises:
        MissingDataError: There are no cells: no MoE kernel, one rank, or ranks that launched
            different numbers.
        NsysmoeError: The input cannot be used.
    """
    with open_trace(path, class_map=class_map, nsys=nsys) as trace:
        trace.read_ahead(("moe_cells", None), ("moe_cell_places", None), ("moe_launches", _PHASED))
        cells = trace.frame("moe_cells")
        _require_cells(trace, cells)
        places = trace.frame("moe_cell_places")
        attribution = _attribution(trace.frame("moe_launches", _PHASED))
        findings = trace.findings()

    from nsysmoe.metrics.imbalance import imbalance as measure  # noqa: PLC0415 - imports polars

    frame = measure(cells.join(places, on="cell"), [by] if by else [])
    rows = tuple({**row, "attribution": attribution} for row in frame.to_dicts())
    return Measured(str(path), rows, tuple(findings))


def phases(
    path: str | Path, *, class_map: ClassMap | None = None, nsys: str | None = None
) -> Measured:
    """Return steps, launches, MoE time and tokens by phase.

    Rows hold what ``metrics.phases.phase_times`` returns.

    Raises:
        NsysmoeError: The input cannot be used.
    """
    with open_trace(path, class_map=class_map, nsys=nsys) as trace:
        trace.read_ahead(
            ("steps", None),
            ("moe_launches", _PHASED),
            ("moe_cells", None),
            ("moe_cell_places", None),
        )
        steps = trace.frame("steps")
        launches = trace.frame("moe_launches", _PHASED)
        cells = trace.frame("moe_cells").join(trace.frame("moe_cell_places"), on="cell")
        findings = trace.findings()

    from nsysmoe.metrics.phases import phase_times  # noqa: PLC0415 - imports polars

    rows = phase_times(steps, launches, cells).to_dicts()
    if steps.is_empty():
        findings.append(_no_steps(str(path)))
    return Measured(str(path), tuple(rows), tuple(findings))


def _attribution(launches: pl.DataFrame) -> dict[str, Any]:
    known = launches.drop_nulls("phase")
    total = int(launches["dur_ns"].sum())
    return {
        "method": "nvtx" if known.height else None,
        "time_ratio": int(known["dur_ns"].sum()) / total if total else None,
    }


def _require_cells(trace: Trace, cells: pl.DataFrame) -> None:
    if cells.height and cells["ranks"].max() != 1:
        return
    ranks = trace.frame("moe_launches", ("rank",))["rank"].value_counts().sort("rank")
    if ranks.is_empty():
        reason = "no MoE kernel ran"
    elif ranks.height == 1:
        reason = "one rank alone ran MoE kernels"
    else:
        counts = ", ".join(f"{count:,}" for count in ranks["count"])
        reason = (
            f"ranks launched different numbers of MoE kernels ({counts}), so none can be paired"
        )
    raise MissingDataError(f"{trace.path} has no balance to measure: {reason}")


def _unmatched(source: str, rows: list[dict[str, Any]]) -> list[Finding]:
    unmatched = sum(row["unmatched"] for row in rows)
    if not unmatched:
        return []
    matched = sum(row["matched"] for row in rows)
    return [
        Finding(
            "unmatched_collectives",
            "warning",
            f"{unmatched:,} communication kernels could not be paired across ranks (other numbers "
            f"of launches, or no overlap) beside {matched:,} that could: their waiting is unknown",
            {"source": source, "matched": matched, "unmatched": unmatched},
        )
    ]


def _no_steps(source: str) -> Finding:
    return Finding(
        "no_steps",
        "warning",
        "no step can be told: the trace holds no execute_context_… ranges; capture vLLM 0.15.1 or "
        "later with --trace=cuda,nvtx and its CUDA profiler",
        {"source": source},
    )
