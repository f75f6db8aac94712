"""Replay of a trace: when everything would have run if some of it had cost less."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nsysmoe.metrics.replay.model import BEGIN, BLOCK, CALL, LET_GO, NONE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nsysmoe.metrics.replay.model import Model

    Floats = NDArray[np.float64]

# A synchronising call that need not wait returns after so long.
_RETURN_NS = 2_000.0


@dataclass(frozen=True)
class Scenario:
    """What is different from the trace.

    Attributes:
        duration: Durations of work, ns; of matched collectives, the time after the last arrival
            (``Model.duration`` holds the trace's own).
        has_host: Whether launches take time; without, all work is launched before it can start.
        has_stalls: Whether threads sit still for ``model.STALL_NS`` or more for no reason at hand.
    """

    duration: Floats
    has_host: bool = True
    has_stalls: bool = True


def replay(model: Model, scenario: Scenario | None = None) -> tuple[Floats, Floats]:
    """Return when all work starts and ends in a scenario, ns: shape (work,) each.

    Args:
        model: What the trace's work waited for.
        scenario: What is different from the trace; nothing where left out.
    """
    walk = _Walk(model, scenario or Scenario(model.duration))
    return np.array(walk.start), np.array(walk.end)


class _Walk:
    """Walks through the trace's events in their order, and moves each in time."""

    def __init__(self, model: Model, scenario: Scenario) -> None:
        self._scenario = scenario
        self._take(model)
        count = len(self._traced_start)
        self.start = [0.0] * count
        # Until a collective's last rank has arrived, nobody knows when it ends.
        self.end = [0.0] * count
        self._arrived: dict[int, int] = {}
        self._last_on: dict[int, int] = {}
        self._waiting_on: dict[int, list[int]] = {}
        self._free_at: dict[int, float] = {}
        self._moved: dict[int, float] = {}
        self._called = [0.0] * len(self._call_start)
        self._returned = list(self._block_end)
        steps = {
            LET_GO: self._let_go,
            CALL: self._call,
            BLOCK: self._block,
            BEGIN: self._begin,
        }
        for kind, number in model.events:
            if kind == BEGIN or scenario.has_host:
                steps[kind](number)

    def _take(self, model: Model) -> None:
        """Copy arrays to lists: reading one item of an array costs ten times as much."""
        work, host = model.work, model.host
        self._traced_start = work.start.tolist()
        self._traced_duration = (work.end - work.start).tolist()
        self._stream = work.stream.tolist()
        self._launch = work.call.tolist()
        self._meeting = work.meeting.tolist()
        self._members = model.members
        self._duration: list[float] = self._scenario.duration.tolist()
        self._gap = model.gap.tolist()
        self._latency = model.latency.tolist()
        self._dependency = model.dependency.tolist()
        self._dependency_gap = model.dependency_gap.tolist()
        self._call_start = host.call_start.tolist()
        self._call_thread = host.call_thread.tolist()
        self._block_start = host.block_start.tolist()
        self._block_end = host.block_end.tolist()
        self._block_thread = host.block_thread.tolist()
        self._awaited = model.awaited.tolist()
        self._awaited_end = work.end[model.awaited].tolist() if len(work.end) else []
        self._wake = model.wake.tolist()
        self._hand_over = model.hand_over.tolist()
        self._still_from = model.still_from.tolist()
        self._stall = model.stall.tolist()

    def _anchor(self, number: int, thread: int, traced: float) -> float:
        """Return when a thread comes to a call, by its number among all calls; moves the thread."""
        moved = self._moved.get(thread, 0.0)
        since = self._still_from[number]
        ready = since + moved
        if (wake := self._wake[number]) != NONE:
            # What lies between is another's work: done by then, a thread goes on at once.
            moved = max(ready, self._returned[wake] + traced - self._block_end[wake]) - traced
        elif (call := self._hand_over[number]) != NONE:
            moved = max(ready, self._called[call] + traced - self._call_start[call]) - traced
        elif not self._scenario.has_stalls:
            moved -= self._stall[number]
        self._moved[thread] = moved
        return traced + moved

    def _call(self, number: int) -> None:
        thread = self._call_thread[number]
        self._called[number] = self._anchor(number, thread, self._call_start[number])

    def _block(self, number: int) -> None:
        thread = self._block_thread[number]
        self._anchor(len(self._call_start) + number, thread, self._block_start[number])

    def _let_go(self, number: int) -> None:
        thread, traced = self._block_thread[number], self._block_end[number]
        moved = self._moved.get(thread, 0.0)
        returned = traced + moved
        if (awaited := self._awaited[number]) != NONE:
            at_once = lasted = traced - self._block_start[number]
            after = traced - self._awaited_end[number]
            if after < lasted:
                at_once = min(_RETURN_NS, lasted)
            else:
                after = min(_RETURN_NS, lasted)
            returned = max(self._block_start[number] + moved + at_once, self.end[awaited] + after)
        self._returned[number] = returned
        self._moved[thread] = returned - traced

    def _begin(self, number: int) -> None:
        self.start[number] = start = max(self._ready(number))
        stream = self._stream[number]
        self._last_on[stream] = number
        meeting = self._meeting[number]
        if meeting == NONE:
            self._finish(number, start + self._duration[number])
            return
        self._waiting_on.setdefault(stream, []).append(number)
        self._arrived[meeting] = self._arrived.get(meeting, 0) + 1
        members = self._members[meeting]
        if self._arrived[meeting] == len(members):
            last = max(self.start[member] for member in members)
            for member in members:
                self._waiting_on[self._stream[member]].remove(member)
                self._finish(member, last + self._duration[member])

    def _ready(self, number: int) -> list[float]:
        """Return when each thing that work waits for is done."""
        stream = self._stream[number]
        times = []
        if stream in self._last_on:
            times.append(self._free(stream) + self._gap[number])
            # It may overlap the work before it, but a stream starts work in order.
            times.append(self.start[self._last_on[stream]])
        if (other := self._dependency[number]) != NONE:
            times.append(self.end[other] + self._dependency_gap[number])
        call = self._launch[number]
        if call != NONE and self._scenario.has_host:
            times.append(self._called[call] + self._latency[number])
        # The first of a device is where the replay begins.
        return times or [self._traced_start[number]]

    def _free(self, stream: int) -> float:
        """Return when a stream is done with what it was given so far."""
        # What overlaps a collective that still waits keeps its distance to its start.
        ends: list[float] = [
            self.start[number] + self._traced_duration[number]
            for number in self._waiting_on.get(stream, ())
        ]
        if stream in self._free_at:
            ends.append(self._free_at[stream])
        return max(ends)

    def _finish(self, number: int, end: float) -> None:
        stream = self._stream[number]
        self.end[number] = end
        self._free_at[stream] = max(self._free_at.get(stream, end), end)
