"""A small machine of hosts, streams and collectives, whose costs are known: the truth for replays.

It knows nothing of `nsysmoe`. Threads run their operations in order; what one of them launches
starts when the stream is free and the launch has arrived; a collective ends everywhere when its
last rank has arrived and the transfer is over. Run again under other costs, it says what a trace
of that would have been.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from fixtures.builder import TraceBuilder
from nsysmoe.metrics.replay import Host, Work

if TYPE_CHECKING:
    from numpy.typing import NDArray

# A call, a stream between two kernels, and a return from a wait take so long.
CALL, GAP, RETURN = 2_500, 1_000, 2_000
# A launch arrives as long after its call as a stream needs between kernels.
LATENCY = CALL + GAP


@dataclass(frozen=True)
class Launch:
    """A kernel: on which stream, for how long, in which meeting, after which other stream's."""

    name: str
    cost: float
    stream: int = 0
    meeting: int | None = None
    label: str | None = None
    after: str | None = None


@dataclass(frozen=True)
class Think:
    """The host does something else, or nothing."""

    ns: float


@dataclass(frozen=True)
class Sync:
    """The host waits for all that its thread launched, or for one kernel."""

    on: str | None = None
    label: str | None = None


@dataclass(frozen=True)
class Until:
    """The thread sits still until another's kernel is being launched, or its wait is over."""

    of: str


Operation = Launch | Think | Sync | Until


@dataclass(frozen=True)
class Thread:
    """What a thread of a rank's process does."""

    rank: int
    program: Sequence[Operation]


@dataclass(frozen=True)
class Costs:
    """What is different: factors by name of kernel, of transfers, and thinking by its length.

    Without a host, everything is launched long before; the first of a stream starts as it is told.
    """

    scale: dict[str, float] = field(default_factory=dict)
    transfer: float = 1.0
    stall_from: float = float("inf")
    stall_to: float = 0.0
    mean_of: dict[tuple[int, int], float] = field(default_factory=dict)
    first: dict[tuple[int, int], float] | None = None


@dataclass
class Ran:
    """A kernel that ran, or will."""

    rank: int
    launch: Launch
    cost: float
    ready: float
    call: int
    number: int
    before: Ran | None
    after: Ran | None
    start: float | None = None
    end: float | None = None


class Simulation:
    """Runs the threads' programs to their ends.

    Attributes:
        ran: Kernels in the order of launches.
        calls: Thread, start and end of each launching call.
        blocks: Thread, start and end of each synchronising call.
    """

    def __init__(self, threads: Sequence[Thread], costs: Costs | None = None) -> None:
        self.threads, self.costs = threads, costs or Costs()
        self.ran: list[Ran] = []
        self.calls: list[tuple[int, float, float]] = []
        self.blocks: list[tuple[int, float, float]] = []
        self._last: dict[tuple[int, int], Ran] = {}
        self._counts: dict[int, int] = {}
        self._labels: dict[str, Ran] = {}
        self._moments: dict[str, float] = {}
        self._now = [0.0] * len(threads)
        self._place = [0] * len(threads)
        self._sizes: dict[int, int] = {}
        for thread in threads:
            for operation in thread.program:
                if isinstance(operation, Launch) and operation.meeting is not None:
                    size = self._sizes.get(operation.meeting, 0)
                    self._sizes[operation.meeting] = size + 1
        moved = True
        while moved:
            # Each of them, not up to the first that moves.
            moves = [self._advance(number) for number in range(len(threads))]
            moved = any(moves)
        assert self._place == [len(thread.program) for thread in threads], "a deadlock"
        assert all(self._end(ran) is not None for ran in self.ran)

    def _advance(self, number: int) -> bool:
        thread, moved = self.threads[number], False
        while self._place[number] < len(thread.program):
            if not self._do(number, thread.program[self._place[number]]):
                break
            self._place[number] += 1
            moved = True
        return moved

    def _do(self, number: int, operation: Operation) -> bool:
        if isinstance(operation, Think):
            is_stall = operation.ns >= self.costs.stall_from
            self._now[number] += self.costs.stall_to if is_stall else operation.ns
            return True
        if isinstance(operation, Launch):
            self._launch(number, operation)
            return True
        if isinstance(operation, Until):
            if operation.of not in self._moments:
                return False
            self._now[number] = max(self._now[number], self._moments[operation.of])
            return True
        return self._sync(number, operation)

    def _launch(self, number: int, launch: Launch) -> None:
        rank, start = self.threads[number].rank, self._now[number]
        count = self._counts.get(rank, 0)
        self._counts[rank] = count + 1
        factor = self.costs.scale.get(launch.name, 1.0)
        if launch.meeting is not None:
            factor *= self.costs.transfer
        before = self._last.get((rank, launch.stream))
        ran = Ran(
            rank=rank,
            launch=launch,
            cost=self.costs.mean_of.get((rank, count), launch.cost) * factor,
            ready=start + LATENCY,
            call=len(self.calls),
            number=count,
            before=before,
            after=self._labels[launch.after] if launch.after else None,
        )
        if self.costs.first is not None:
            is_first = before is None and ran.after is None
            ran.ready = self.costs.first[rank, launch.stream] if is_first else -float("inf")
        self._last[rank, launch.stream] = ran
        self.ran.append(ran)
        self.calls.append((number, start, start + CALL))
        if launch.label:
            self._labels[launch.label] = ran
            self._moments[launch.label] = start
        self._now[number] += CALL

    def _sync(self, number: int, sync: Sync) -> bool:
        mine = [ran for ran in self.ran if self.calls[ran.call][0] == number]
        if sync.on is not None:
            mine = [self._labels[sync.on]]
        ends = [self._end(ran) for ran in mine]
        if any(end is None for end in ends):
            return False
        start = self._now[number]
        self._now[number] = max([start, *(end for end in ends if end is not None)]) + RETURN
        self.blocks.append((number, start, self._now[number]))
        if sync.label:
            self._moments[sync.label] = self._now[number]
        return True

    def _start(self, ran: Ran) -> float | None:
        if ran.start is None:
            found = [ran.ready]
            for other in (ran.before, ran.after):
                if other is not None:
                    end = self._end(other)
                    if end is None:
                        return None
                    found.append(end + GAP)
            ran.start = max(found)
        return ran.start

    def _end(self, ran: Ran) -> float | None:
        if ran.end is not None:
            return ran.end
        start = self._start(ran)
        if start is None:
            return None
        if ran.launch.meeting is None:
            ran.end = start + ran.cost
            return ran.end
        members = [other for other in self.ran if other.launch.meeting == ran.launch.meeting]
        starts = [self._start(other) for other in members]
        known = [at for at in starts if at is not None]
        if len(known) < self._sizes[ran.launch.meeting]:
            return None
        for member in members:
            member.end = max(known) + member.cost
        return ran.end

    # --- what came of it --------------------------------------------------------------------------

    def ordered(self) -> list[Ran]:
        """Return what ran, by start, as a trace holds it."""
        return sorted(self.ran, key=lambda ran: (ran.start, ran.end, ran.rank, ran.launch.stream))

    def times(self) -> dict[tuple[int, int], tuple[float, float]]:
        """Return start and end of each kernel, by rank and place in the order of launches."""
        return {
            (ran.rank, ran.number): (float(ran.start or 0), float(ran.end or 0)) for ran in self.ran
        }

    def firsts(self) -> dict[tuple[int, int], float]:
        """Return when the first kernel of each stream started."""
        found: dict[tuple[int, int], float] = {}
        for ran in self.ordered():
            found.setdefault((ran.rank, ran.launch.stream), float(ran.start or 0))
        return found

    def arrays(self) -> tuple[Work, Host]:
        """Return the trace as a replay takes it, without any view between."""
        ran = self.ordered()
        ends: dict[tuple[int, int], float] = {}
        is_late = []
        for one in ran:
            key = (one.rank, one.launch.stream)
            called = self.calls[one.call][2]
            is_late.append(key not in ends or min(called, one.start or 0) > ends[key])
            ends[key] = max(ends.get(key, -float("inf")), float(one.end or 0))
        streams = sorted(ends)
        work = Work(
            start=_ints([one.start for one in ran]),
            end=_ints([one.end for one in ran]),
            stream=_ints([streams.index((one.rank, one.launch.stream)) for one in ran]),
            device=_ints([one.rank for one in ran]),
            process=_ints([one.rank for one in ran]),
            call=_ints([one.call for one in ran]),
            is_late=np.array(is_late, dtype=bool),
            meeting=_ints([-1 if (m := one.launch.meeting) is None else m for one in ran]),
        )
        ranks = [thread.rank for thread in self.threads]
        host = Host(
            call_start=_ints([start for _, start, _ in self.calls]),
            call_end=_ints([end for _, _, end in self.calls]),
            call_thread=_ints([thread for thread, _, _ in self.calls]),
            call_process=_ints([ranks[thread] for thread, _, _ in self.calls]),
            block_start=_ints([start for _, start, _ in self.blocks]),
            block_end=_ints([end for _, _, end in self.blocks]),
            block_thread=_ints([thread for thread, _, _ in self.blocks]),
            block_process=_ints([ranks[thread] for thread, _, _ in self.blocks]),
        )
        return work, host

    def builder(self) -> TraceBuilder:
        """Return the trace as nsys would have exported it."""
        build = TraceBuilder()
        for rank in sorted({thread.rank for thread in self.threads}):
            build.gpu(rank).process(1000 + rank, "python3").device(1000 + rank, rank, rank)
        for ran in self.ordered():
            start, end = round(ran.start or 0), round(ran.end or 0)
            build.kernel(ran.launch.name, start, end - start, device=ran.rank, pid=1000 + ran.rank,
                         stream=7 + ran.launch.stream, correlation=ran.call)  # fmt: skip
        for number, (thread, began, done) in enumerate(self.calls):
            self._call(build, thread, began, done, number, "cudaLaunchKernel_v7000")
        for number, (thread, began, done) in enumerate(self.blocks, len(self.calls)):
            self._call(build, thread, began, done, number, "cudaStreamSynchronize_v3020")
        return build

    def _call(
        self, build: TraceBuilder, thread: int, start: float, end: float, number: int, name: str
    ) -> None:
        pid = 1000 + self.threads[thread].rank
        build.call(round(start), round(end) - round(start), pid=pid, tid=pid + thread,
                   correlation=number, name=name)  # fmt: skip


def _ints(values: Sequence[Any]) -> NDArray[np.int64]:
    return np.array(values, dtype=np.int64).reshape(-1)
