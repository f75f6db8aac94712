"""Replay of a trace: when everything would have run if some of it had cost less."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from nsysmoe.metrics.replay.model import BEGIN, BLOCK, CALL, NONE

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from nsysmoe.metrics.replay.model import Model

    Floats = NDArray[np.float64]

# A synchronising call that need not wait returns after so long.
_RETURN_NS = 2_000.0
# Compiling takes as long as so many events do without.
_WORTH_COMPILING = 1_000_000


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
    traced = _traced(model, scenario or Scenario(model.duration))
    moved = _unmoved(traced)
    is_large = model.kinds.size >= _WORTH_COMPILING
    if is_large and (compiled := _compiled()) is not None:
        compiled(traced, moved)
        return moved.start, moved.end
    # Reading one item of an array costs ten times as much as one of a list.
    listed = _Moved(*(array.tolist() for array in moved))
    _walk(_Traced(*(_listed(given) for given in traced)), listed)
    return np.array(listed.start), np.array(listed.end)


class _Traced(NamedTuple):
    """What a walk is given: arrays of ``Model``, ``Work`` and ``Host``, or lists of the same."""

    has_host: bool
    has_stalls: bool
    kinds: Any
    numbers: Any
    start: Any
    traced_duration: Any
    duration: Any
    stream: Any
    call: Any
    meeting: Any
    first_member: Any
    members: Any
    gap: Any
    latency: Any
    dependency: Any
    dependency_gap: Any
    call_start: Any
    call_thread: Any
    block_start: Any
    block_end: Any
    block_thread: Any
    awaited: Any
    awaited_end: Any
    wake: Any
    hand_over: Any
    still_from: Any
    stall: Any


class _Moved(NamedTuple):
    """What a walk finds out, ns, and where it stands.

    Attributes:
        start: Start of each work.
        end: Its end; until a collective's last rank has arrived, nobody knows it.
        called: Start of each launching call.
        returned: End of each synchronising call.
        thread: By how much each thread is moved.
        last_on: The work that each stream began last, or NONE.
        free_at: End of all that each stream has finished.
        waiting_on: The collective that each stream entered last and that still waits, or NONE.
        behind: Of each such collective, the one before it on its stream.
        arrived: Ranks that have come to each collective.
        last_arrival: When the last of them did.
    """

    start: Any
    end: Any
    called: Any
    returned: Any
    thread: Any
    last_on: Any
    free_at: Any
    waiting_on: Any
    behind: Any
    arrived: Any
    last_arrival: Any


def _traced(model: Model, scenario: Scenario) -> _Traced:
    work, host = model.work, model.host
    return _Traced(
        has_host=scenario.has_host,
        has_stalls=scenario.has_stalls,
        kinds=model.kinds,
        numbers=model.numbers,
        start=work.start,
        traced_duration=work.end - work.start,
        duration=scenario.duration,
        stream=work.stream,
        call=work.call,
        meeting=work.meeting,
        first_member=model.first_member,
        members=model.members,
        gap=model.gap,
        latency=model.latency,
        dependency=model.dependency,
        dependency_gap=model.dependency_gap,
        call_start=host.call_start,
        call_thread=host.call_thread,
        block_start=host.block_start,
        block_end=host.block_end,
        block_thread=host.block_thread,
        awaited=model.awaited,
        awaited_end=work.end[model.awaited] if work.end.size else work.end,
        wake=model.wake,
        hand_over=model.hand_over,
        still_from=model.still_from,
        stall=model.stall,
    )


def _unmoved(traced: _Traced) -> _Moved:
    work, streams = traced.start.size, traced.stream.max(initial=-1) + 1
    threads = max(traced.call_thread.max(initial=-1), traced.block_thread.max(initial=-1)) + 1
    meetings = traced.first_member.size - 1
    return _Moved(
        start=np.zeros(work),
        end=np.zeros(work),
        called=np.zeros(traced.call_start.size),
        returned=traced.block_end.astype(np.float64),
        thread=np.zeros(threads),
        last_on=np.full(streams, NONE),
        free_at=np.full(streams, -np.inf),
        waiting_on=np.full(streams, NONE),
        behind=np.full(work if meetings else 0, NONE, dtype=np.int32),
        arrived=np.zeros(meetings, dtype=np.int64),
        last_arrival=np.full(meetings, -np.inf),
    )


def _listed(given: Any) -> Any:
    return given.tolist() if isinstance(given, np.ndarray) else given


@cache
def _compiled() -> Callable[[_Traced, _Moved], None] | None:
    """Return the walk as machine code; None where numba is not installed."""
    try:
        from numba import njit  # noqa: PLC0415 - takes half a second
        from numba.extending import register_jitable  # noqa: PLC0415
    except ImportError:
        return None
    for step in (_move_thread, _let_go, _begin, _ready, _free, _leave, _finish):
        register_jitable(step)
    compiled: Callable[[_Traced, _Moved], None] = njit(nogil=True)(_walk)
    return compiled


# --- the walk: plain Python, and machine code from the same lines ---------------------------------


def _walk(traced: _Traced, moved: _Moved) -> None:
    """Walk through the trace's events in their order, and move each in time."""
    if not traced.has_host:
        for number in range(len(traced.start)):
            _begin(traced, moved, number)
        return
    calls = len(traced.call_start)
    for place in range(len(traced.kinds)):
        kind, number = traced.kinds[place], traced.numbers[place]
        if kind == BEGIN:
            _begin(traced, moved, number)
        elif kind == CALL:
            at, thread = traced.call_start[number], traced.call_thread[number]
            moved.called[number] = _move_thread(traced, moved, number, thread, at)
        elif kind == BLOCK:
            at, thread = traced.block_start[number], traced.block_thread[number]
            _move_thread(traced, moved, calls + number, thread, at)
        else:
            _let_go(traced, moved, number)


def _move_thread(traced: _Traced, moved: _Moved, number: int, thread: int, at: int) -> float:
    """Return when a thread comes to a call, by its number among all calls; moves the thread."""
    by: float = moved.thread[thread]
    ready = traced.still_from[number] + by
    wake, call = traced.wake[number], traced.hand_over[number]
    if wake != NONE:
        # What lies between is another's work: done by then, a thread goes on at once.
        by = max(ready, moved.returned[wake] + at - traced.block_end[wake]) - at
    elif call != NONE:
        by = max(ready, moved.called[call] + at - traced.call_start[call]) - at
    elif not traced.has_stalls:
        by -= traced.stall[number]
    moved.thread[thread] = by
    return at + by


def _let_go(traced: _Traced, moved: _Moved, number: int) -> None:
    """Return from a synchronising call; moves the thread."""
    thread, at = traced.block_thread[number], traced.block_end[number]
    by = moved.thread[thread]
    returned = at + by
    awaited = traced.awaited[number]
    if awaited != NONE:
        lasted = float(at - traced.block_start[number])
        after = float(at - traced.awaited_end[number])
        at_once = lasted
        if after < lasted:
            at_once = min(_RETURN_NS, lasted)
        else:
            after = min(_RETURN_NS, lasted)
        returned = max(traced.block_start[number] + by + at_once, moved.end[awaited] + after)
    moved.returned[number] = returned
    moved.thread[thread] = returned - at


def _begin(traced: _Traced, moved: _Moved, number: int) -> None:
    start = _ready(traced, moved, number)
    moved.start[number] = start
    stream, meeting = traced.stream[number], traced.meeting[number]
    moved.last_on[stream] = number
    if meeting == NONE:
        _finish(traced, moved, number, start + traced.duration[number])
        return
    moved.behind[number] = moved.waiting_on[stream]
    moved.waiting_on[stream] = number
    moved.arrived[meeting] += 1
    moved.last_arrival[meeting] = max(moved.last_arrival[meeting], start)
    first, end = traced.first_member[meeting], traced.first_member[meeting + 1]
    if moved.arrived[meeting] == end - first:
        for place in range(first, end):
            member = traced.members[place]
            _leave(traced, moved, member)
            last = moved.last_arrival[meeting]
            _finish(traced, moved, member, last + traced.duration[member])


def _ready(traced: _Traced, moved: _Moved, number: int) -> float:
    """Return when all that work waits for is done."""
    ready = -np.inf
    stream = traced.stream[number]
    before = moved.last_on[stream]
    if before != NONE:
        # It may overlap the work before it, but a stream starts work in order.
        ready = max(_free(traced, moved, stream) + traced.gap[number], moved.start[before])
    other = traced.dependency[number]
    if other != NONE:
        ready = max(ready, moved.end[other] + traced.dependency_gap[number])
    call = traced.call[number]
    if call != NONE and traced.has_host:
        ready = max(ready, moved.called[call] + traced.latency[number])
    # The first of a device is where the replay begins.
    return ready if ready > -np.inf else float(traced.start[number])


def _free(traced: _Traced, moved: _Moved, stream: int) -> float:
    """Return when a stream is done with what it was given so far."""
    free: float = moved.free_at[stream]
    waiting = moved.waiting_on[stream]
    while waiting != NONE:
        # What overlaps a collective that still waits keeps its distance to its start.
        free = max(free, moved.start[waiting] + traced.traced_duration[waiting])
        waiting = moved.behind[waiting]
    return free


def _leave(traced: _Traced, moved: _Moved, number: int) -> None:
    """Take a collective that all have come to from those that its stream waits for."""
    stream = traced.stream[number]
    waiting = moved.waiting_on[stream]
    if waiting == number:
        moved.waiting_on[stream] = moved.behind[number]
        return
    while moved.behind[waiting] != number:
        waiting = moved.behind[waiting]
    moved.behind[waiting] = moved.behind[number]


def _finish(traced: _Traced, moved: _Moved, number: int, end: float) -> None:
    stream = traced.stream[number]
    moved.end[number] = end
    moved.free_at[stream] = max(moved.free_at[stream], end)
