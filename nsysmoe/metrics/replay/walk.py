"""Replay of a trace: when everything would have run if some of it had cost less."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from nsysmoe.metrics.replay.model import BEGIN, CALL, LET_GO, NONE

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
        last_on=np.full(streams, NONE, dtype=np.int32),
        free_at=np.full(streams, -np.inf),
        waiting_on=np.full(streams, NONE, dtype=np.int32),
        behind=np.full(work if meetings else 0, NONE, dtype=np.int32),
        arrived=np.zeros(meetings, dtype=np.int64),
        last_arrival=np.full(meetings, -np.inf),
    )


def _listed(given: Any) -> Any:
    return given.tolist() if isinstance(given, np.ndarray) else given


def is_fast() -> bool:
    """Tell whether the walk through large traces is machine code: numba is installed."""
    return find_spec("numba") is not None


@cache
def _compiled() -> Callable[[_Traced, _Moved], None] | None:
    """Return the walk as machine code; None where numba is not installed."""
    if not is_fast():
        return None
    from numba import njit  # noqa: PLC0415 - takes half a second

    compiled: Callable[[_Traced, _Moved], None] = njit(nogil=True)(_walk)
    return compiled


# --- the walk: plain Python, and machine code from the same lines ---------------------------------


def _walk(traced: _Traced, moved: _Moved) -> None:  # noqa: C901, PLR0912, PLR0915
    """Walk through the trace's events in their order, and move each in time."""
    # One loop over local names. A function for each kind of event was tried: as machine code ten
    # times as slow (6,060,000 events in 1.45 s, not 0.14: numba counts references to each array
    # that is handed on), in plain Python up to a tenth.
    (has_host, has_stalls, kinds, numbers, traced_start, traced_duration, duration, streams, calls,
     meetings, first_member, members, gap, latency, dependency, dependency_gap, call_start,
     call_thread, block_start, block_end, block_thread, awaited, awaited_end, wakes, hand_overs,
     still_from, stall) = traced  # fmt: skip
    (start, end, called, returned, threads, last_on, free_at, waiting_on, behind, arrived,
     last_arrival) = moved  # fmt: skip
    for place in range(len(kinds) if has_host else len(traced_start)):
        # Without a host nothing else happens than that work begins, in the order of its numbers.
        kind, number = BEGIN, place
        if has_host:
            kind, number = kinds[place], numbers[place]
        if kind == BEGIN:
            stream, meeting = streams[number], meetings[number]
            ready = -np.inf
            before = last_on[stream]
            if before != NONE:
                # What overlaps a collective that still waits keeps its distance to its start.
                free, waiting = free_at[stream], waiting_on[stream]
                while waiting != NONE:
                    free = max(free, start[waiting] + traced_duration[waiting])
                    waiting = behind[waiting]
                # It may overlap the work before it, but a stream starts work in order.
                ready = max(free + gap[number], start[before])
            other = dependency[number]
            if other != NONE:
                ready = max(ready, end[other] + dependency_gap[number])
            call = calls[number]
            if has_host and call != NONE:
                ready = max(ready, called[call] + latency[number])
            if ready == -np.inf:
                # The first of a device is where the replay begins.
                ready = float(traced_start[number])
            start[number] = ready
            last_on[stream] = number
            if meeting == NONE:
                end[number] = ready + duration[number]
                free_at[stream] = max(free_at[stream], end[number])
                continue
            behind[number] = waiting_on[stream]
            waiting_on[stream] = number
            arrived[meeting] += 1
            last_arrival[meeting] = max(last_arrival[meeting], ready)
            first, after_last = first_member[meeting], first_member[meeting + 1]
            if arrived[meeting] < after_last - first:
                continue
            # All have come: it ends on every rank, and streams no longer wait for it.
            for member_place in range(first, after_last):
                member = members[member_place]
                stream = streams[member]
                end[member] = last_arrival[meeting] + duration[member]
                free_at[stream] = max(free_at[stream], end[member])
                if waiting_on[stream] == member:
                    waiting_on[stream] = behind[member]
                    continue
                waiting = waiting_on[stream]
                while behind[waiting] != member:
                    waiting = behind[waiting]
                behind[waiting] = behind[member]
        elif kind == LET_GO:
            thread, at = block_thread[number], block_end[number]
            by = threads[thread]
            back = at + by
            work = awaited[number]
            if work != NONE:
                lasted = float(at - block_start[number])
                after = float(at - awaited_end[number])
                at_once = lasted
                if after < lasted:
                    at_once = min(_RETURN_NS, lasted)
                else:
                    after = min(_RETURN_NS, lasted)
                back = max(block_start[number] + by + at_once, end[work] + after)
            returned[number] = back
            threads[thread] = back - at
        else:
            # A thread comes to a call, which is numbered among all calls.
            if kind == CALL:
                thread, at, anchor = call_thread[number], call_start[number], number
            else:
                thread, at = block_thread[number], block_start[number]
                anchor = len(call_start) + number
            by = threads[thread]
            could = still_from[anchor] + by
            wake, hand_over = wakes[anchor], hand_overs[anchor]
            if wake != NONE:
                # What lies between is another's work: done by then, a thread goes on at once.
                by = max(could, returned[wake] + at - block_end[wake]) - at
            elif hand_over != NONE:
                # It begins as long after it was given that, and was free for it, as it did.
                since = max(still_from[anchor], call_start[hand_over])
                by = max(could, called[hand_over]) - since
            elif not has_stalls:
                by -= stall[anchor]
            threads[thread] = by
            if kind == CALL:
                called[number] = at + by
