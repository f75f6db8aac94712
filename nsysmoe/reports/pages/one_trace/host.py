"""Host anatomy: the time of launching threads, and what the profiler added."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from nsysmoe.metrics.kernel_time.phases import UNATTRIBUTED
from nsysmoe.reports import numbers
from nsysmoe.reports.document import Document, Table
from nsysmoe.reports.tables import left, right, table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from nsysmoe.analysis.one_trace.host import Host

_RANK = (
    right("Process", "process_id", numbers.as_is),
    right("Device", "device_id", numbers.as_is),
    left("Phase", "phase", numbers.as_is),
)
_RANKS = (
    *_RANK,
    right("Steps", "steps", numbers.count),
    right("Left out", "slow_steps", numbers.count),
    right("Launches a step", "launches", numbers.decimal),
    right("Graphs a step", "graph_launches", numbers.decimal),
    right("CUDA calls a step", "calls", numbers.decimal),
    right("Step (ms)", "wall_ns", numbers.milliseconds),
    right("Launching", "launching", numbers.share),
    right("Other calls", "calling", numbers.share),
    right("Synchronising", "blocked", numbers.share),
    right("Outside calls", "outside", numbers.share),
    right("Outside (ms a step)", "outside_ns", numbers.milliseconds),
)
_CALLS = (
    *_RANK,
    left("Call", "call", numbers.as_is),
    right("Calls", "calls", numbers.count),
    right("A step", "per_step", numbers.decimal),
    right("Median (us)", "median_ns", numbers.microseconds),
    right("Mean (us)", "mean_ns", numbers.microseconds),
    right("Total (ms)", "total_ns", numbers.milliseconds),
)
_APART = (
    left("Phase", "phase", numbers.as_is),
    left("Time", "part", numbers.as_is),
    right("Ranks", "ranks", numbers.count),
    right("Slowest process", "process_id", numbers.as_is),
    right("Device", "device_id", numbers.as_is),
    right("Slowest (ms a step)", "slower_ns", numbers.milliseconds),
    right("Fastest (ms a step)", "faster_ns", numbers.milliseconds),
    right("Apart (ms a step)", "by_ns", numbers.milliseconds),
    right("Ratio", "ratio", numbers.times),
)
_OVERHEADS = (
    left("Of", "origin", numbers.as_is),
    left("Overhead", "kind", numbers.as_is),
    right("Times", "count", numbers.count),
    right("Total (ms)", "total_ns", numbers.milliseconds),
    right("Adds (ms)", "added_ns", numbers.milliseconds),
    right("While GPUs worked (ms)", "in_window_ns", numbers.milliseconds),
    right("On launching threads (ms)", "on_launching_ns", numbers.milliseconds),
)
_ALL_OF_A_KIND = {"launch": "all kernel launches", "graph_launch": "all graph launches"}
_METRICS = {"tpot": "TPOT", "ttft": "TTFT"}
_PARTS = (
    "The thread that launches most of a GPU's work, its time cut where the call that launches a "
    "step's first kernel starts. Steps of 3 times the median of others with as much to do are left "
    "out. Counts and times a step are medians; shares are of all time of the steps kept. Outside "
    "calls: Python, waiting for other threads and processes, and whatever else runs on the core."
)
_TRACED = (
    "The profiler's own table holds initialisation, allocation and flushes; they nest, and what "
    "they add counts no moment of a thread twice. What tracing adds to each call is not in it: "
    "only an unprofiled control tells (--run-json)."
)


def host_page(host: Host) -> Document:
    """Return the parts of launching threads' time, by rank and phase, and the overheads."""
    tables = [table(f"Launching threads of {host.source}", host.ranks, _RANKS)]
    if host.asymmetry:
        tables.append(table("Between ranks", host.asymmetry, _APART))
    tables.append(table("Launches by API function", _called(host.calls), _CALLS))
    if host.overheads:
        tables.append(table("Overheads that nsys recorded", host.overheads, _OVERHEADS))
    if host.latency is not None:
        tables.append(_latencies(host.latency))
    return Document(
        title=f"Host anatomy of {host.source}",
        tables=tuple(tables),
        data={
            "source": host.source,
            "window_ns": host.window_ns,
            "ranks": list(host.ranks),
            "calls": list(host.calls),
            "asymmetry": list(host.asymmetry),
            "overheads": list(host.overheads),
            "latency": host.latency,
        },
        records=host.ranks,
        findings=host.findings,
        notes=(_PARTS, _TRACED),
        lead=tuple(_lead(host)),
    )


def _lead(host: Host) -> Iterable[str]:
    phase = _main_phase(host)
    rows = [row for row in host.ranks if row["phase"] == phase and row["wall_ns"] is not None]
    if rows:
        yield _parts(phase, rows)
    yield from (_apart(row) for row in host.asymmetry if row["phase"] == phase)
    yield _overhead(host)
    yield from _of_cuda(host)
    for key, change in (host.latency or {}).items():
        yield _changed(_METRICS[key], change)


def _called(calls: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Name the rows that hold all calls of a kind; of a kind with one function that one alone."""
    functions = Counter(_kind(row) for row in calls if row["call"] is not None)
    return [
        {**row, "call": row["call"] or _ALL_OF_A_KIND[row["kind"]]}
        for row in calls
        if row["call"] is not None or functions[_kind(row)] > 1
    ]


def _kind(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[key] for key in ("process_id", "device_id", "phase", "kind"))


def _main_phase(host: Host) -> str:
    time: dict[str, float] = {}
    for row in host.ranks:
        time[row["phase"]] = time.get(row["phase"], 0.0) + row["steps"] * (row["wall_ns"] or 0.0)
    return max(time, key=lambda phase: time[phase])


def _parts(phase: str, rows: list[dict[str, Any]]) -> str:
    share = {
        part: numbers.share(sum(row[part] or 0.0 for row in rows) / len(rows))
        for part in ("outside", "launching", "calling", "blocked")
    }
    launches = _span([row["launches"] for row in rows])
    graphs = _span([row["graph_launches"] for row in rows])
    named = "graph" if graphs == "1" else "graphs"
    replayed = f" and {graphs} {named}" if any(row["graph_launches"] for row in rows) else ""
    return (
        f"In {_step(phase)} a launching thread launches {launches} kernels{replayed}; of its time "
        f"{share['outside']} lies outside any CUDA call, {share['launching']} in launches, "
        f"{share['calling']} in other calls, {share['blocked']} in waiting for the GPU."
    )


def _step(phase: str) -> str:
    return "a step of unknown phase" if phase == UNATTRIBUTED else f"a {phase} step"


def _span(values: list[float]) -> str:
    low, high = (f"{value:,.4g}" for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def _apart(row: dict[str, Any]) -> str:
    what = "outside calls" if row["part"] == "outside" else "in launches"
    return (
        f"GPU {row['device_id']} of process {numbers.as_is(row['process_id'])} is the slowest "
        f"{what}: {numbers.milliseconds(row['slower_ns'])} ms in {_step(row['phase'])} against "
        f"{numbers.milliseconds(row['faster_ns'])} ({numbers.times(row['ratio'])})."
    )


def _overhead(host: Host) -> str:
    own = [row for row in host.overheads if row["origin"] == "profiler"]
    if not own:
        return "nsys recorded no overhead of its own."
    during = sum(row["in_window_ns"] for row in own)
    launching = sum(row["on_launching_ns"] for row in own)
    return (
        f"nsys recorded {numbers.milliseconds(sum(row['added_ns'] for row in own))} ms of its own "
        f"overhead, {numbers.milliseconds(during)} ms of it while GPUs worked, "
        f"{numbers.milliseconds(launching)} ms of that on launching threads."
    )


def _of_cuda(host: Host) -> Iterable[str]:
    """Say what CUDA recorded of itself on launching threads, where there is any."""
    parts = [row for row in host.overheads if row["origin"] == "cuda" and row["on_launching_ns"]]
    if parts:
        named = ", ".join(row["kind"] for row in parts)
        taken = numbers.milliseconds(sum(row["on_launching_ns"] for row in parts))
        yield f"CUDA's own overhead on launching threads: {taken} ms while GPUs worked ({named})."


def _changed(metric: str, change: dict[str, Any] | None) -> str:
    if change is None:
        return f"The run.json tells no {metric}."
    spread = change["control_spread"]
    within = (
        f"; unprofiled rounds differ by {numbers.share(spread)} among themselves"
        if spread is not None
        else ""
    )
    moved = change["change"]
    is_evident = spread is None or moved is None or abs(moved) > spread
    so = "" if is_evident else ", so this is no evidence of a cost"
    return (
        f"Under the profiler {metric} was {numbers.seconds_as_ms(change['profiled_s'])} ms against "
        f"{numbers.seconds_as_ms(change['control_s'])} ({numbers.change(moved)}; medians of "
        f"{change['profiled_requests']} and {change['control_requests']} requests{within}{so})."
    )


def _latencies(latency: dict[str, dict[str, Any] | None]) -> Table:
    rows = [{"metric": key, **change} for key, change in latency.items() if change is not None]
    columns = (
        left("Latency", "metric", _METRICS.__getitem__),
        right("Profiled (ms)", "profiled_s", numbers.seconds_as_ms),
        right("Control (ms)", "control_s", numbers.seconds_as_ms),
        right("Change", "change", numbers.change),
        right("Requests", "profiled_requests", numbers.count),
        right("Control requests", "control_requests", numbers.count),
        right("Control rounds", "control_rounds", numbers.count),
        right("Rounds differ by", "control_spread", numbers.share),
    )
    return table("What profiling changed, medians over requests", rows, columns)
