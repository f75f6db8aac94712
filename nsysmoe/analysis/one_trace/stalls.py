"""What stopped a run, and what it cost: the stalls of one trace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from nsysmoe.trace import open_trace

if TYPE_CHECKING:
    from pathlib import Path

    from nsysmoe.classes import ClassMap
    from nsysmoe.findings import Finding

By = Literal["stall", "kind"]
_STEPS = ("global_pid", "process_id", "device_id", "step", "phase", "start_ns", "end_ns", "wall_ns")
_IDLE = ("global_pid", "device_id", "start_ns", "end_ns")
_RANGES = ("global_pid", "start_ns", "end_ns")


@dataclass(frozen=True)
class Stalls:
    """The stalls of one trace; times in ns.

    Attributes:
        source: The file.
        rows: One a stall, the largest loss first (``metrics.stalls.find_stalls``), with
            ``share`` (of ``wall_ns``).
        kinds: Kind to ``stalls``, ``hidden``, ``lost_ns`` and ``share``; a moment that several
            stalls share counts once (``metrics.stalls.stall_sums``).
        wall_ns: The longest window of work of any GPU.
        steps: Steps of the GPU with most of them.
        has_calls: Whether the trace tells which thread launched the work: without, neither loads
            nor silences can be seen.
        findings: What was odd about the file.
    """

    source: str
    rows: tuple[dict[str, Any], ...]
    kinds: dict[str, dict[str, Any]]
    wall_ns: int
    steps: int
    has_calls: bool
    findings: tuple[Finding, ...]

    @property
    def lost_ns(self) -> int:
        """Wall time that stalls took, no moment twice."""
        return sum(kind["lost_ns"] for kind in self.kinds.values())

    def __bool__(self) -> bool:
        """Tell whether there is any stall, whether or not it cost time."""
        return bool(self.rows)


def stalls(
    path: str | Path, *, class_map: ClassMap | None = None, nsys: str | None = None
) -> Stalls:
    """Find what stopped a run: slow steps, loads of code, rearrangements, silences.

    Raises:
        NsysmoeError: The input cannot be used.
    """
    with open_trace(path, class_map=class_map, nsys=nsys) as trace:
        trace.read_ahead(
            ("host_gaps", None),
            ("idle_gaps", _IDLE),
            ("device_steps", _STEPS),
            ("slice_work", None),
            ("rearrangements", None),
            ("steps", _RANGES),
            ("launching_threads", ("is_main",)),
        )
        gaps, idle = trace.frame("host_gaps"), trace.frame("idle_gaps", _IDLE)
        steps, moved = trace.frame("device_steps", _STEPS), trace.frame("rearrangements")
        ranges, work = trace.frame("steps", _RANGES), trace.frame("slice_work")
        has_calls = not trace.frame("launching_threads", ("is_main",)).is_empty()
        findings = trace.findings()

    import polars as pl  # noqa: PLC0415

    from nsysmoe.metrics.kernel_time.stalls import find_stalls, stall_sums  # noqa: PLC0415 - imports polars
    from nsysmoe.metrics.kernel_time.steps import with_work  # noqa: PLC0415

    found = find_stalls(gaps, idle, with_work(steps, work), moved, ranges)
    devices = steps.group_by("global_pid", "device_id").agg(
        pl.col("wall_ns").sum(), pl.col("step").is_not_null().sum().alias("steps")
    )
    wall_ns = int(devices["wall_ns"].max() or 0)  # type: ignore[arg-type]
    return Stalls(
        str(trace.path),
        tuple({**row, "share": _share(row, wall_ns)} for row in found.iter_rows(named=True)),
        {
            kind: {**row, "share": _share(row, wall_ns)}
            for kind, row in stall_sums(found, idle).items()
        },
        wall_ns,
        int(devices["steps"].max() or 0),  # type: ignore[arg-type]
        has_calls,
        tuple(findings),
    )


def _share(row: dict[str, Any], wall_ns: int) -> float | None:
    return row["lost_ns"] / wall_ns if wall_ns else None
