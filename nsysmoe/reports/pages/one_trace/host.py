"""Host anatomy: the time of launching threads, and what the profiler added."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from nsysmoe.metrics.kernel_time.phases import UNATTRIBUTED
from nsysmoe.reports import numbers
from nsysmoe.reports.document import Column, Document, Row, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from nsysmoe.analysis.one_trace.host import Host

    Spec = tuple[tuple[str, str, Callable[[Any], str]], ...]


def _text(value: Any) -> str:
    return numbers.UNKNOWN if value is None else str(value)


_RANK: Spec = (
    ("process_id", "Process", numbers.identifier),
    ("device_id", "Device", numbers.identifier),
    ("phase", "Phase", _text),
)
_RANKS: Spec = (
    *_RANK,
    ("steps", "Steps", numbers.count),
    ("slow_steps", "Left out", numbers.count),
    ("launches", "Launches a step", numbers.decimal),
    ("graph_launches", "Graphs a step", numbers.decimal),
    ("calls", "CUDA calls a step", numbers.decimal),
    ("wall_ns", "Step (ms)", numbers.milliseconds),
    ("launching", "Launching", numbers.share),
    ("calling", "Other calls", numbers.share),
    ("blocked", "Synchronising", numbers.share),
    ("outside", "Outside calls", numbers.share),
    ("outside_ns", "Outside (ms a step)", numbers.milliseconds),
)
_CALLS: Spec = (
    *_RANK,
    ("call", "Call", _text),
    ("calls", "Calls", numbers.count),
    ("per_step", "A step", numbers.decimal),
    ("median_ns", "Median (us)", numbers.microseconds),
    ("mean_ns", "Mean (us)", numbers.microseconds),
    ("total_ns", "Total (ms)", numbers.milliseconds),
)
_APART: Spec = (
    ("phase", "Phase", _text),
    ("part", "Time", _text),
    ("ranks", "Ranks", numbers.count),
    ("process_id", "Slowest process", numbers.identifier),
    ("device_id", "Device", numbers.identifier),
    ("slower_ns", "Slowest (ms a step)", numbers.milliseconds),
    ("faster_ns", "Fastest (ms a step)", numbers.milliseconds),
    ("by_ns", "Apart (ms a step)", numbers.milliseconds),
    ("ratio", "Ratio", numbers.times),
)
_OVERHEADS: Spec = (
    ("origin", "Of", _text),
    ("kind", "Overhead", _text),
    ("count", "Times", numbers.count),
    ("total_ns", "Total (ms)", numbers.milliseconds),
    ("added_ns", "Adds (ms)", numbers.milliseconds),
    ("in_window_ns", "While GPUs worked (ms)", numbers.milliseconds),
    ("on_launching_ns", "On launching threads (ms)", numbers.milliseconds),
)
_LEFT = {"Phase", "Call", "Time", "Of", "Overhead"}
_ALL_OF_A_KIND = {"launch": "all kernel launches", "graph_launch": "all graph launches"}
_METRICS = {"tpot": "TPOT", "ttft": "TTFT"}
_PARTS = (
    "The thread that launches most of a GPU's work, its time cut where the call that launches a "
    "step's first kernel starts. Steps of 3 times the median of their phase's others are left "
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
    tables = [_table(f"Launching threads of {host.source}", _RANKS, host.ranks)]
    if host.asymmetry:
        tables.append(_table("Between ranks", _APART, host.asymmetry))
    tables.append(_table("Launches by API function", _CALLS, _called(host.calls)))
    if host.overheads:
        tables.append(_table("Overheads that nsys recorded", _OVERHEADS, host.overheads))
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
        f"GPU {row['device_id']} of process {numbers.identifier(row['process_id'])} is the slowest "
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
        f"Under the profiler {metric} was {_seconds(change['profiled_s'])} ms against "
        f"{_seconds(change['control_s'])} ({numbers.change(moved)}; medians of "
        f"{change['profiled_requests']} and {change['control_requests']} requests{within}{so})."
    )


def _seconds(seconds: float) -> str:
    return numbers.decimal(seconds * 1e3)


def _latencies(latency: dict[str, dict[str, Any] | None]) -> Table:
    columns = (
        Column("Latency", "left"),
        Column("Profiled (ms)"),
        Column("Control (ms)"),
        Column("Change"),
        Column("Requests"),
        Column("Control requests"),
        Column("Control rounds"),
        Column("Rounds differ by"),
    )
    rows = [
        Row(
            (
                _METRICS[key],
                _seconds(change["profiled_s"]),
                _seconds(change["control_s"]),
                numbers.change(change["change"]),
                numbers.count(change["profiled_requests"]),
                numbers.count(change["control_requests"]),
                numbers.count(change["control_rounds"]),
                numbers.share(change["control_spread"]),
            )
        )
        for key, change in latency.items()
        if change is not None
    ]
    return Table("What profiling changed, medians over requests", columns, tuple(rows))


def _table(caption: str, spec: Spec, rows: Iterable[dict[str, Any]]) -> Table:
    columns = tuple(Column(title, "left" if title in _LEFT else "right") for _, title, _ in spec)
    cells = tuple(Row(tuple(shown(row[key]) for key, _, shown in spec)) for row in rows)
    return Table(caption, columns, cells)
