"""What would happen if: a trace replayed under other costs."""

from __future__ import annotations

import fnmatch
import functools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from nsysmoe.analysis.reading.arrays import read_arrays
from nsysmoe.errors import MissingDataError
from nsysmoe.findings import Finding
from nsysmoe.trace import open_trace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from nsysmoe.classes import ClassMap
    from nsysmoe.metrics.replay import Boundaries, Model
    from nsysmoe.trace import Trace

    Floats = NDArray[np.float64]

_TIMES = ("start_ns", "end_ns")
_WORK = {
    "start_ns": "int64",
    "end_ns": "int64",
    "stream": "int32",
    "is_late": "bool",
    "meeting": "int32",
    "global_tid": "int64",
    "call_start_ns": "int64",
    "call_end_ns": "int64",
    "kernel_id": "int64",
    "name_id": "int32",
}
_COUNTED = ("launches",)
_FUNCTIONS = ("name_id", "function")
_NEEDED = (
    ("replayed_work", tuple(_WORK)),
    ("replayed_streams", None),
    ("blocking_calls", None),
    ("device_steps", None),
    ("clocks", None),
    ("moe_cells", None),
    ("moe_launches", None),
    ("kernel_classes", _COUNTED),
    ("kernel_classes", _FUNCTIONS),
)
# What every command keeps to; a report leaves out replays that take more.
MOST_BYTES = 1_000_000_000
# Measured (docs/performance.md): arrays of what each kernel waited for, none on disk, and all else.
_BYTES_A_KERNEL, _BYTES_BESIDE = 240, 500_000_000
# A walk that is not compiled goes through lists, whose numbers are objects.
_BYTES_A_KERNEL_IN_LISTS = 750
# An error beyond this says that the trace holds dependencies which the replay does not know.
_NOTABLE_ERROR = 0.01


@dataclass(frozen=True)
class Change:
    """What is taken away from a trace, and kernels that take another time.

    Attributes:
        balanced_moe: Every rank takes the mean of its cell in each MoE kernel.
        no_host_delay: All work is launched before it can start.
        free_transfer: Collectives end when their last rank arrives.
        no_stalls: Launching threads do not sit still for 10 ms or more for nobody.
        scale: Name (or pattern) of a kernel's function, and the factor of its duration.
    """

    balanced_moe: bool = False
    no_host_delay: bool = False
    free_transfer: bool = False
    no_stalls: bool = False
    scale: tuple[tuple[str, float], ...] = ()

    def named(self) -> str:
        """Return what it changes, for people."""
        flags = [name for name in REMOVALS if getattr(self, name)]
        scaled = [f"{kernel} x {factor:g}" for kernel, factor in self.scale]
        return " and ".join([*(name.replace("_", " ") for name in flags), *scaled]) or "nothing"


REMOVALS = ("balanced_moe", "no_host_delay", "free_transfer", "no_stalls")


@dataclass(frozen=True)
class WhatIf:
    """A trace, its replay, and its replay under a change; times in ns.

    Wall time is that of the GPU whose window is longest in each.

    Attributes:
        source: The file.
        change: What was changed.
        traced_ns: Wall time of the trace.
        replayed_ns: Wall time of its unchanged replay.
        whatif_ns: Wall time of the changed replay.
        phases: The same by phase, with ``steps``.
        alone: Each removal by itself: ``change``, ``whatif_ns``, ``saved_ns``; empty where a
            change was asked for.
        order: Removals one after the other, each the one that saves most: ``change`` (all up to
            it), ``added``, ``whatif_ns``, ``saved_ns``.
        findings: What to know before believing it.
    """

    source: str
    change: Change
    traced_ns: int
    replayed_ns: float
    whatif_ns: float
    phases: dict[str, dict[str, Any]]
    alone: tuple[dict[str, Any], ...]
    order: tuple[dict[str, Any], ...]
    findings: tuple[Finding, ...]

    @property
    def replay_error(self) -> float:
        """Replayed / traced wall time - 1."""
        return self.replayed_ns / self.traced_ns - 1

    @property
    def saved_ns(self) -> float:
        """What the change saves of the replayed wall time."""
        return self.replayed_ns - self.whatif_ns


def whatif(
    path: str | Path,
    change: Change | None = None,
    *,
    class_map: ClassMap | None = None,
    nsys: str | None = None,
    tell: Callable[[str], None] | None = None,
) -> WhatIf:
    """Replay a trace as it was, and as it would have been.

    Args:
        path: A trace.
        change: What to change; where left out, every removal by itself and in order.
        class_map: What each kernel is for; the shipped map where left out.
        nsys: The ``nsys`` that exports a report; the one on PATH where left out.
        tell: Called with a sentence on the memory that this is going to take, where that is more
            than 1 GB, before it is taken.

    Raises:
        MissingDataError: No kernel has the name that is to be scaled; balance is asked for and
            ranks' MoE kernels cannot be paired; kernels took no time.
        NsysmoeError: The input cannot be used.
    """
    with open_trace(path, class_map=class_map, nsys=nsys) as trace:
        trace.read_ahead(*_NEEDED)
        if tell is not None and (note := _memory_note(trace)) is not None:
            tell(note)
        replayed = _Replayed(trace)
        findings = trace.findings()
    return _replays(replayed, change or Change(), findings)


def whatif_of(trace: Trace) -> WhatIf:
    """Replay an opened trace as it was, and without each bottleneck.

    Takes and raises otherwise what ``whatif`` does.
    """
    trace.read_ahead(*_NEEDED)
    return _replays(_Replayed(trace), Change(), trace.findings())


def _replays(replayed: _Replayed, change: Change, findings: Sequence[Finding]) -> WhatIf:
    if not sum(replayed.traced.values()):
        raise MissingDataError(f"{replayed.path} has no time to replay: its kernels took none")
    base = replayed.walls(Change())
    changed = replayed.walls(change) if change != Change() else base
    is_asked = change != Change()
    found = WhatIf(
        source=str(replayed.path),
        change=change,
        traced_ns=sum(replayed.traced.values()),
        replayed_ns=sum(base.values()),
        whatif_ns=sum(changed.values()),
        phases=replayed.phases(base, changed),
        alone=() if is_asked else tuple(_alone(replayed, base)),
        order=() if is_asked else tuple(_in_order(replayed, base)),
        findings=(),
    )
    return replace(found, findings=(*_inexact(found), *findings))


def replay_bytes(kernels: int) -> int:
    """Return about how much memory the replays of a trace with so many kernels take."""
    from nsysmoe.metrics.replay import is_fast  # noqa: PLC0415 - numpy and polars

    each = _BYTES_A_KERNEL if is_fast() else _BYTES_A_KERNEL_IN_LISTS
    return _BYTES_BESIDE + each * kernels


def _memory_note(trace: Trace) -> str | None:
    """Say how much memory a replay takes, where that is more than 1 GB."""
    kernels = int(trace.frame("kernel_classes", _COUNTED)["launches"].sum())
    if (size := replay_bytes(kernels)) <= MOST_BYTES:
        return None
    return (
        f"{kernels:,} kernels: their replay takes about {size / 1e9:.1f} GB of "
        "memory, which --memory-limit does not bound"
    )


def _alone(replayed: _Replayed, base: dict[str, float]) -> Iterable[dict[str, Any]]:
    for name in replayed.removals():
        yield _row(_without(Change(), name), replayed, base)


def _in_order(replayed: _Replayed, base: dict[str, float]) -> Iterable[dict[str, Any]]:
    """Take away what saves most, then what saves most of what is left, and so on."""
    change, left = Change(), list(replayed.removals())
    while left:
        tried = {name: _row(_without(change, name), replayed, base) for name in left}
        best = max(left, key=lambda name: tried[name]["saved_ns"])
        change = _without(change, best)
        left.remove(best)
        yield {**tried[best], "added": best}


def _without(change: Change, removal: str) -> Change:
    return replace(change, **{removal: True})  # type: ignore[arg-type]


def _row(change: Change, replayed: _Replayed, base: dict[str, float]) -> dict[str, Any]:
    wall = sum(replayed.walls(change).values())
    changed = [name for name in REMOVALS if getattr(change, name)]
    return {"change": changed, "whatif_ns": wall, "saved_ns": sum(base.values()) - wall}


class _Replayed:
    """A trace ready to be replayed under any change."""

    def __init__(self, trace: Trace) -> None:
        from nsysmoe.metrics.replay import (  # noqa: PLC0415 - numpy and polars
            NONE,
            boundaries,
            host_of,
            on_one_clock,
            phase_walls,
            work_of,
        )

        clocks = trace.frame("clocks")
        steps = on_one_clock(trace.frame("device_steps"), clocks, _TIMES)
        blocking_calls = on_one_clock(trace.frame("blocking_calls"), clocks, _TIMES)
        streams, columns = (
            trace.frame("replayed_streams"),
            read_arrays(trace, "replayed_work", _WORK),
        )
        self._kernel_id, self._name_id = columns.pop("kernel_id"), columns.pop("name_id")
        work, calls = work_of(columns, streams)
        del columns
        self._work, self._host = work, host_of(calls, blocking_calls)
        is_kernel = self._kernel_id != NONE
        self._cuts: list[Boundaries] = boundaries(work, is_kernel, streams, steps)
        self._cells = trace.frame("moe_cells")
        self._launches = trace.frame("moe_launches", ("kernel_id", "ordinal"))
        self._functions = trace.frame("kernel_classes", _FUNCTIONS)
        self.path = trace.path
        longest, traced = phase_walls(
            work.start.astype("float64"), work.end.astype("float64"), self._cuts
        )
        self._counts = _count_steps(longest)
        self.traced = {phase: round(wall) for phase, wall in traced.items()}

    @functools.cached_property
    def _model(self) -> Model:
        """What waited for what; learnt when the trace, which takes memory too, may be closed."""
        from nsysmoe.metrics.replay import Model  # noqa: PLC0415

        return Model(self._work, self._host)

    def removals(self) -> list[str]:
        """Return what can be taken away from this trace."""
        return [name for name in REMOVALS if name != "balanced_moe" or self._has_cells()]

    def walls(self, change: Change) -> dict[str, float]:
        """Return the wall time of each phase under a change, ns."""
        from nsysmoe.metrics.replay import Scenario, phase_walls, replay  # noqa: PLC0415

        scenario = Scenario(
            self._durations(change),
            has_host=not change.no_host_delay,
            has_stalls=not change.no_stalls,
        )
        return phase_walls(*replay(self._model, scenario), self._cuts)[1]

    def phases(self, base: dict[str, float], changed: dict[str, float]) -> dict[str, Any]:
        """Return traced, replayed and changed wall time by phase, the longest first."""
        return {
            phase: {
                "steps": self._counts.get(phase, 0),
                "traced_ns": self.traced.get(phase, 0),
                "replayed_ns": base.get(phase, 0.0),
                "whatif_ns": changed.get(phase, 0.0),
                "saved_ns": base.get(phase, 0.0) - changed.get(phase, 0.0),
            }
            # Another GPU may be the longest in a replay, and know other phases.
            for phase in sorted({**changed, **base, **self.traced}, key=self._traced_last)
        }

    def _traced_last(self, phase: str) -> int:
        return -self.traced.get(phase, 0)

    def _durations(self, change: Change) -> Floats:
        import numpy as np  # noqa: PLC0415

        found: Floats = self._model.duration.copy()
        if change.balanced_moe:
            balanced = self._balanced()
            found = np.where(np.isnan(balanced), found, balanced)
        if change.free_transfer:
            found[self._model.work.meeting >= 0] = 0.0
        for pattern, factor in change.scale:
            found[self._named(pattern)] *= factor
        return found

    def _balanced(self) -> Floats:
        """Return the mean of its cell for each MoE kernel, NaN for all else."""
        import polars as pl  # noqa: PLC0415

        if not self._has_cells():
            raise MissingDataError(
                f"{self.path} has no balance to replay: ranks' MoE kernels cannot be paired "
                "(`nsysmoe imbalance` says why)"
            )
        means = self._launches.join(
            self._cells.select(pl.col("cell").alias("ordinal"), "mean_ns"), on="ordinal"
        ).select("kernel_id", "mean_ns")
        rows = pl.DataFrame({"kernel_id": self._kernel_id}).join(
            means, on="kernel_id", how="left", maintain_order="left"
        )
        balanced: Floats = rows["mean_ns"].cast(pl.Float64).fill_null(float("nan")).to_numpy()
        return balanced

    def _has_cells(self) -> bool:
        return bool((self._cells["ranks"] > 1).any())

    def _named(self, pattern: str) -> NDArray[np.bool_]:
        import numpy as np  # noqa: PLC0415
        import polars as pl  # noqa: PLC0415

        functions = self._functions["function"].unique().sort().to_list()
        wanted = [name for name in functions if fnmatch.fnmatchcase(name, pattern)]
        if not wanted:
            raise MissingDataError(
                f"{self.path} ran no kernel {pattern}; `nsysmoe kernels` lists what ran"
            )
        ids = self._functions.filter(pl.col("function").is_in(wanted))["name_id"]
        is_named: NDArray[np.bool_] = np.isin(self._name_id, ids.to_numpy())
        return is_named


def _count_steps(cuts: Boundaries) -> dict[str, int]:
    counts: dict[str, int] = {}
    for phase, is_step in zip(cuts.phases, cuts.is_step, strict=True):
        counts[phase] = counts.get(phase, 0) + is_step
    return counts


def _inexact(found: WhatIf) -> list[Finding]:
    if abs(found.replay_error) <= _NOTABLE_ERROR:
        return []
    return [
        Finding(
            "inexact_replay",
            "warning",
            f"the unchanged replay takes {found.replay_error:+.1%} of the traced time: the trace "
            "holds dependencies that the replay does not know, so its answers are off by as much",
            {"traced_ns": found.traced_ns, "replayed_ns": found.replayed_ns},
        )
    ]
