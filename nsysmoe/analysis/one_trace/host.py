"""Host anatomy of one trace: what launching costs, and what the profiler added."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nsysmoe.errors import InputError, MissingDataError
from nsysmoe.export.run_json import read_rounds
from nsysmoe.trace import open_trace

if TYPE_CHECKING:
    from pathlib import Path

    from nsysmoe.classes import ClassMap
    from nsysmoe.findings import Finding

_STEPS = ("global_pid", "device_id", "step", "phase", "start_ns", "end_ns", "wall_ns")


@dataclass(frozen=True)
class Host:
    """What launching threads did; times in ns unless the name says s.

    Attributes:
        source: The file.
        ranks: One row a launching thread and phase (``metrics.host.anatomy``).
        calls: One row a rank, phase and launch call (``metrics.host.launch_costs``).
        asymmetry: One row a phase, that of most time first (``metrics.host.asymmetry``).
        overheads: One row a kind of overhead (``metrics.host.overhead_totals``).
        window_ns: First start to last end of work of any GPU.
        latency: ``tpot`` and ``ttft`` (``metrics.host.latency_change``, each None where the
            run.json has none); None without a run.json.
        findings: What was odd about the file.
    """

    source: str
    ranks: tuple[dict[str, Any], ...]
    calls: tuple[dict[str, Any], ...]
    asymmetry: tuple[dict[str, Any], ...]
    overheads: tuple[dict[str, Any], ...]
    window_ns: int
    latency: dict[str, dict[str, Any] | None] | None
    findings: tuple[Finding, ...]


def host(
    path: str | Path,
    *,
    run_json: Path | None = None,
    control: Path | None = None,
    class_map: ClassMap | None = None,
    nsys: str | None = None,
) -> Host:
    """Take the time of launching threads apart, and say what the profiler added.

    Args:
        path: The trace.
        run_json: Latencies of the profiled run: its last round was profiled.
        control: Latencies of an unprofiled run, its last round to compare with; where left out,
            the rounds before the profiled one are.
        class_map: What each kernel is for; the shipped map where left out.
        nsys: The ``nsys`` that exports a report; the one on PATH where left out.

    Raises:
        MissingDataError: No CUDA call of a launching thread was recorded, or a run.json of one
            round has no control.
        NsysmoeError: The input cannot be used.
    """
    # What was typed wrong is said before a large trace is read.
    latency = None if run_json is None else _latency(run_json, control)
    if run_json is None and control is not None:
        raise InputError(f"{control} has nothing to be compared with: name the profiled run too")
    with open_trace(path, class_map=class_map, nsys=nsys) as trace:
        trace.read_ahead(
            ("host_steps", None),
            ("launch_calls", None),
            ("profiler_overhead", None),
            ("device_steps", _STEPS),
            ("slice_work", None),
        )
        steps, calls = trace.frame("host_steps"), trace.frame("launch_calls")
        overheads = trace.frame("profiler_overhead")
        windows, work = trace.frame("device_steps", _STEPS), trace.frame("slice_work")
        findings = trace.findings()
    if steps.is_empty():
        raise MissingDataError(
            f"{trace.path} does not say which thread launched its kernels: no CUDA calls were "
            "recorded with them; capture with --trace=cuda, and export without leaving out "
            "CUPTI_ACTIVITY_KIND_RUNTIME"
        )

    from nsysmoe.metrics.kernel_time.host import (  # noqa: PLC0415 - imports polars
        anatomy,
        asymmetry,
        launch_costs,
        launched_work,
        overhead_totals,
    )

    steps = launched_work(steps, windows, work)
    ranks = anatomy(steps)
    launching = steps["global_tid"].unique().to_list()
    return Host(
        str(trace.path),
        tuple(ranks.drop("global_tid").to_dicts()),
        tuple(launch_costs(calls, steps).drop("global_tid").to_dicts()),
        tuple(asymmetry(ranks).to_dicts()),
        tuple(overhead_totals(overheads, launching).to_dicts()),
        int(windows["end_ns"].max() - windows["start_ns"].min()),  # type: ignore[operator,arg-type]
        latency,
        tuple(findings),
    )


def _latency(run_json: Path, control: Path | None) -> dict[str, dict[str, Any] | None]:
    from nsysmoe.metrics.kernel_time.host import latency_change  # noqa: PLC0415 - imports polars

    rounds = read_rounds(run_json)
    unprofiled = rounds[:-1] if control is None else read_rounds(control)
    if not unprofiled:
        raise MissingDataError(
            f"{run_json} holds one round, the profiled one; name an unprofiled run with --control"
        )
    return {
        "tpot": latency_change(rounds[-1].tpot_s, [one.tpot_s for one in unprofiled]),
        "ttft": latency_change(rounds[-1].ttft_s, [one.ttft_s for one in unprofiled]),
    }
