"""What the totals hide: waiting, balance across ranks, and phases, for one trace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from nsysmoe.analysis.reading.arrivals import (
    MET,
    TURNS,
    arrivals,
    arrivals_text,
    known_clocks,
    total_uncertainty,
    transfers_of_files,
    unsure_waits,
    waits_of_files,
)
from nsysmoe.analysis.reading.attribution import (
    attribution,
    read_cells,
    read_launches,
    trusted_steps,
)
from nsysmoe.analysis.reading.gathering import only_run
from nsysmoe.analysis.reading.hosts import with_host
from nsysmoe.errors import MissingDataError
from nsysmoe.findings import Finding

if TYPE_CHECKING:
    import polars as pl

    from nsysmoe.analysis.reading.gathering import Gathering
    from nsysmoe.classes import ClassMap
    from nsysmoe.export.files import Source
    from nsysmoe.trace import Trace

_SUMMED = ("name_id", "global_pid", "collective", "data_type", "communicator")
# Of waits, where clocks of several files decide what they are worth.
_MET = (*MET, "function", "global_pid", "process_id", "device_id")
_GRAPHS = ("graph_launches", ("dur_ns",))
ImbalanceBy = Literal["layer", "phase", "step", "gemm"]


@dataclass(frozen=True)
class Measured:
    """Rows that answer one question about one trace; times in ns, null where unknown.

    ``attribution`` is how phases are known, where the question asks for them.
    """

    source: str
    rows: tuple[dict[str, Any], ...]
    findings: tuple[Finding, ...]
    attribution: dict[str, Any] | None = None


def collectives(
    path: Source,
    by: Literal["communicator"] | None = None,
    *,
    class_map: ClassMap | None = None,
    nsys: str | None = None,
    gathering: Gathering | None = None,
) -> Measured:
    """Return transfer and waiting of each communication kernel and device (and communicator).

    Rows hold what ``metrics.collectives.collective_times`` returns.

    Raises:
        NsysmoeError: The input cannot be used.
    """
    run = only_run(path, gathering, class_map=class_map, nsys=nsys)
    with run.opened(class_map=class_map, nsys=nsys) as trace:
        trace.read_ahead(("collective_totals", None), *TURNS, ("clocks", None), _GRAPHS)
        totals = with_host(trace.frame("collective_totals"), trace.hosts)
        clocks = known_clocks(trace)
        last = arrivals(trace, clocks, trace.hosts)
        across, transfers, unsure = _across_files(trace, clocks, str(run.path))
        findings = _odd(trace)

    from nsysmoe.metrics.kernel_time.collectives import collective_times  # noqa: PLC0415 - imports polars

    rows = collective_times(totals, by, across, transfers).to_dicts()
    is_named = "nvtx" in totals["communicator_source"]
    unmatched = _unmatched(str(run.path), rows, inferred=not is_named)
    findings = [*_last_to_arrive(last, clocks), *unsure, *unmatched, *findings]
    return Measured(str(run.path), tuple(rows), tuple(findings))


def imbalance(
    path: Source,
    by: ImbalanceBy | None = None,
    *,
    class_map: ClassMap | None = None,
    nsys: str | None = None,
    gathering: Gathering | None = None,
) -> Measured:
    """Return how unequal MoE work is across ranks; one row, or one for each value of ``by``.

    Rows hold what ``metrics.imbalance.imbalance`` returns, and ``attribution``: how steps are
    known (``nvtx`` or None) and the share of MoE time that belongs to one.

    Raises:
        MissingDataError: There are no cells: no MoE kernel, one rank, or ranks that launched
            different numbers.
        NsysmoeError: The input cannot be used.
    """
    run = only_run(path, gathering, class_map=class_map, nsys=nsys)
    with run.opened(class_map=class_map, nsys=nsys) as trace:
        trace.read_ahead(
            ("moe_cells", None), ("moe_phases", None), ("moe_cell_places", None), _GRAPHS
        )
        launches = read_launches(trace)
        cells = read_cells(trace)
        _require_cells(trace, cells, launches)
        findings = _odd(trace)

    from nsysmoe.metrics.kernel_time.imbalance import imbalance as measure  # noqa: PLC0415 - imports polars
    from nsysmoe.metrics.kernel_time.imbalance import slowest_by_layer  # noqa: PLC0415

    frame = measure(cells, [by] if by else [])
    if by == "layer":
        frame = frame.join(
            slowest_by_layer(cells), on="layer", how="left", nulls_equal=True, maintain_order="left"
        )
    known = attribution(launches)
    rows = tuple({**row, "attribution": known} for row in frame.to_dicts())
    return Measured(str(run.path), rows, tuple(findings), known)


def phases(
    path: Source,
    *,
    class_map: ClassMap | None = None,
    nsys: str | None = None,
    gathering: Gathering | None = None,
) -> Measured:
    """Return steps, launches, MoE time and tokens by phase.

    Rows hold what ``metrics.phases.phase_times`` returns.

    Raises:
        NsysmoeError: The input cannot be used.
    """
    run = only_run(path, gathering, class_map=class_map, nsys=nsys)
    with run.opened(class_map=class_map, nsys=nsys) as trace:
        trace.read_ahead(
            ("steps", None),
            ("moe_phases", None),
            ("moe_phase_steps", None),
            ("moe_cells", None),
            ("moe_cell_places", None),
            ("collective_totals", _SUMMED),
            _GRAPHS,
        )
        launches, launched_in = read_launches(trace), trace.frame("moe_phase_steps")
        steps = trusted_steps(trace.frame("steps"), launches)
        cells = read_cells(trace)
        cells = cells.filter(cells["ranks"] > 1)
        summed = trace.frame("collective_totals", _SUMMED)
        findings = _odd(trace)

    from nsysmoe.metrics.kernel_time.phases import engines, phase_times  # noqa: PLC0415 - imports polars

    rows = phase_times(steps, launches, launched_in, cells, engines(summed)).to_dicts()
    known = attribution(launches)
    if steps.is_empty():
        findings.append(_no_ranges(str(run.path), known))
    return Measured(str(run.path), tuple(rows), tuple(findings), known)


def _across_files(
    trace: Trace, clocks: pl.DataFrame, source: str
) -> tuple[pl.DataFrame | None, pl.DataFrame | None, list[Finding]]:
    """Return what clocks of several files leave unsure of waits and of transfers, and findings."""
    if not trace.members:
        return None, None, []
    import polars as pl  # noqa: PLC0415

    met = with_host(trace.frame("matched_collectives", _MET), trace.hosts)
    waits = met.filter(pl.col("is_matched") & ~pl.col("is_last"))["wait_ns"]
    findings = unsure_waits(waits, clocks, source)
    across, transfers = waits_of_files(trace, met), transfers_of_files(trace, met)
    if across is None or transfers is None:
        return None, None, findings
    waiting = across.filter(~across["is_last"])
    findings += total_uncertainty(waiting, int(waits.sum()), source)
    kernels = met.drop(name for name in MET if name != "kernel_id")
    return across.join(kernels, on="kernel_id"), transfers.join(kernels, on="kernel_id"), findings


def _odd(trace: Trace) -> list[Finding]:
    """Return what was odd about the file, and whether CUDA graphs hide kernels of it."""
    from nsysmoe.analysis.diagnosis import hidden_kernels  # noqa: PLC0415 - imports polars

    launches = trace.frame("graph_launches", ("dur_ns",))
    hidden = hidden_kernels(
        "this trace", str(trace.path), launches.height, int(launches["dur_ns"].sum())
    )
    return [*([hidden] if hidden else []), *trace.findings()]


def _require_cells(trace: Trace, cells: pl.DataFrame, launches: pl.DataFrame) -> None:
    if cells.height and cells["ranks"].max() != 1:
        return
    import polars as pl  # noqa: PLC0415

    ranks = launches.group_by("rank").agg(pl.col("launches").sum()).sort("rank")
    if ranks.is_empty():
        reason = "no MoE kernel ran"
    elif ranks.height == 1:
        reason = "one rank alone ran MoE kernels"
    else:
        counts = ", ".join(f"{count:,}" for count in ranks["launches"])
        reason = (
            f"ranks launched different numbers of MoE kernels ({counts}), so none can be paired"
        )
    raise MissingDataError(f"{trace.path} has no balance to measure: {reason}")


def _last_to_arrive(part: dict[str, Any] | None, clocks: pl.DataFrame) -> list[Finding]:
    if part is None:
        return []
    message = f"who arrives last at collectives: {arrivals_text(part)}"
    evidence = {**part, "clocks": clocks.drop("global_pid").to_dicts()}
    return [Finding("last_to_arrive", "info", message, evidence)]


_TELL_APART = (
    "; where ranks belong to several communicators, `nsys export --include-json=true` (2025.3 or "
    "later) tells them apart"
)


def _unmatched(source: str, rows: list[dict[str, Any]], *, inferred: bool) -> list[Finding]:
    unmatched = sum(row["unmatched"] for row in rows)
    if not unmatched:
        return []
    matched = sum(row["matched"] for row in rows)
    return [
        Finding(
            "unmatched_collectives",
            "warning",
            f"{unmatched:,} communication kernels could not be paired across ranks (other numbers "
            f"of launches, or no overlap) beside {matched:,} that could: their waiting is unknown"
            f"{_TELL_APART if inferred else ''}",
            {"source": source, "matched": matched, "unmatched": unmatched},
        )
    ]


_WITHOUT_RANGES = {
    "grid": "by grid size: a small prefill looks like decode, and mixed steps like prefill",
    "duration": "by duration alone (low confidence): capture with NVTX to be sure",
    None: "by nothing: neither grid sizes nor durations split into two groups",
}


def _no_ranges(source: str, known: dict[str, Any]) -> Finding:
    return Finding(
        "no_step_ranges",
        "warning",
        "the trace holds no execute_context_… ranges (vLLM 0.15.1 or later writes them with "
        "--trace=cuda,nvtx and its CUDA profiler), so phases are told "
        f"{_WITHOUT_RANGES[known['method']]}",
        {"source": source, **known},
    )
