"""What everything in a trace waited for: the gaps and dependencies that a replay keeps.

Work on a stream runs in order. It starts when three things are done: the work before it on the
stream (and a gap that is the GPU's own), what it waits for on another stream of its device, and
its launch (and the latency of that launch). A collective ends on each rank as long after the last
arrival as it did. A host thread does what it did as long after what went before as it did, except
where it waited: a synchronising call returns after the work that it waited for, a thread that sat
still until another's synchronisation returned wakes after that, and a thread that launches nothing
begins to wait after the last launch of its process and its own wait before.

Gaps, latencies and think times are the trace's own, so the replay of an unchanged trace repeats it
wherever these dependencies hold; the error of that replay says where they do not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ints = NDArray[np.int64] | NDArray[np.int32]
    Floats = NDArray[np.float64]

NONE = -1
# A thread that makes no call for so long, and does once another's wait is over, waited for it.
_WAKE_NS = 100_000
# Work that was launched in time and starts so much later than usual waits for something else.
_WAITING_NS = 5_000
# A thread that makes no call for so long, and waits for nobody, is stalled.
STALL_NS = 10_000_000
# What happens, in the order in which things of one instant do.
LET_GO, CALL, BLOCK, BEGIN = 0, 1, 2, 3


@dataclass(frozen=True)
class Work:
    """Everything that ran on GPUs, by start; arrays of one length, times in ns.

    Attributes:
        start: Starts, ascending.
        end: Ends.
        stream: Number of the stream, from 0; each belongs to one device.
        device: Number of the device, from 0.
        process: Number of the process, from 0.
        call: Number of the launching call in ``Host``; NONE where it was not recorded.
        is_late: Whether its stream had nothing to do before that call returned.
        meeting: Number of the collective that it takes part in; NONE outside matched ones.
    """

    start: Ints
    end: Ints
    stream: Ints
    device: Ints
    process: Ints
    call: Ints
    is_late: NDArray[np.bool_]
    meeting: Ints


@dataclass(frozen=True)
class Host:
    """What host threads did; arrays of two lengths, times in ns.

    Attributes:
        call_start: Start of each launching call.
        call_end: Its end.
        call_thread: Number of its thread, from 0.
        call_process: Number of its process, as ``Work`` counts them.
        block_start: Start of each synchronising call.
        block_end: Its end.
        block_thread: Number of its thread, as calls count them.
        block_process: Number of its process, as ``Work`` counts them.
    """

    call_start: Ints
    call_end: Ints
    call_thread: Ints
    call_process: Ints
    block_start: Ints
    block_end: Ints
    block_thread: Ints
    block_process: Ints


class Model:
    """What each thing of a trace waited for, learnt once.

    Attributes:
        work: What ran.
        host: What launched it.
        duration: Shape (work,), ns: duration of each, of a matched collective the time from the
            last arrival to its end.
        members: Work that takes part in matched collectives, one collective after the other.
        first_member: Shape (collectives + 1,): where those of each begin in ``members``.
        gap: Shape (work,), ns: between the work before on the stream and this.
        latency: Shape (work,), ns: between its call and this, where the call held it up.
        dependency: Shape (work,): work of another stream that this waited for, or NONE.
        dependency_gap: Shape (work,), ns: between the end of that and this.
        awaited: Shape (blocks,): work that a synchronising call waited for, or found done; NONE
            where there was none.
        wake: Shape (calls + blocks,): the synchronising call whose return ended a thread's
            stillness before this call, or NONE.
        hand_over: Shape (calls + blocks,): the launching call that did, or NONE.
        still_from: Shape (calls + blocks,), ns: since when the thread had sat still.
        stall: Shape (calls + blocks,), ns: how much longer than usual it sat still for nobody.
        kinds: Kinds of what happens, in the trace's order.
        numbers: Numbers of the same, among those of its kind.
    """

    def __init__(self, work: Work, host: Host) -> None:
        self.work = work
        self.host = host = _before_work(host, work)
        self.members, self.first_member = _members(work.meeting)
        self.duration = _durations(work, self.members, self.first_member)
        self._learn_gaps(_previous_ends(work))
        self.awaited = _awaited(work, host)
        self._learn_threads()
        self.kinds, self.numbers = self._ordered()

    def _learn_gaps(self, previous_end: Ints) -> None:
        """Take apart why each work started when it did: ``start`` is the latest of three."""
        work, host = self.work, self.host
        is_first = previous_end == NONE
        gap = np.where(is_first, 0, work.start - previous_end)
        latency = work.start - _of_call(host.call_start, work)
        after_call = work.start - _of_call(host.call_end, work)
        # Launched late, and started as soon as it was.
        is_held_up = work.is_late & (after_call <= _WAITING_NS)
        # Streams that only copy now and then have no gaps that say anything: by device.
        is_back_to_back = ~is_held_up & ~is_first & (gap >= 0) & (gap <= _WAITING_NS)
        usual_gap = _medians(gap, work.device, is_back_to_back)
        usual_latency = _medians(latency, work.device, is_held_up)
        # What was launched late may have had to wait as well, had it been launched in time.
        waits = (gap > usual_gap + _WAITING_NS) | is_first | is_held_up
        self.dependency = _dependencies(work, previous_end, waits)
        has_other = self.dependency != NONE
        after = np.where(has_other, work.start - work.end[self.dependency], 0)
        at_most = np.where(is_held_up, usual_gap, np.inf)
        self.dependency_gap = np.minimum(at_most, after)
        # Where something else held it up, the GPU alone would have left the usual gap.
        at_most = np.where(is_held_up | has_other, usual_gap, np.inf)
        self.gap = np.minimum(at_most, gap)
        # The first that waits for nothing else is where its device begins.
        at_most = np.where(is_held_up | (is_first & ~has_other), np.inf, usual_latency)
        self.latency = np.minimum(at_most, latency)

    def _learn_threads(self) -> None:
        """Find where threads sat still: for another's wait to end, or for no reason at hand."""
        host = self.host
        self._starts = starts = np.concatenate([host.call_start, host.block_start])
        ends = np.concatenate([host.call_end, host.block_end])
        threads = np.concatenate([host.call_thread, host.block_thread])
        self.wake = np.full(starts.size, NONE, dtype=np.int32)
        self.hand_over = np.full(starts.size, NONE, dtype=np.int32)
        self.still_from = np.zeros(starts.size)
        self.stall = np.zeros(starts.size)
        for thread in np.unique(threads):
            anchors = np.flatnonzero(threads == thread)
            anchors = anchors[np.argsort(starts[anchors], kind="stable")]
            # Before its first call of the trace, a thread has sat still for no known time.
            busy_until = np.maximum.accumulate(np.append(starts[anchors[0]], ends[anchors]))[:-1]
            self.still_from[anchors] = busy_until
            if (host.call_thread == thread).any():
                self._learn_stillness(anchors, starts[anchors] - busy_until)
            else:
                self._learn_hand_overs(anchors)

    def _learn_stillness(self, anchors: Ints, still: Ints) -> None:
        """Tell a launching thread that waited for another's wait to end from one that stalled."""
        for waits in self._releases(anchors):
            self._learn_wakes(anchors, still, waits)
        is_stalled = (still >= STALL_NS) & (self.wake[anchors] == NONE)
        self.stall[anchors[is_stalled]] = still[is_stalled] - np.median(still)

    def _learn_wakes(self, anchors: Ints, still: Ints, waits: Ints) -> None:
        """Find the pauses that ended because a wait had: the longest between two such returns.

        A pause in which a return happens to fall is none: a thread pauses all the time.
        """
        starts, since = self._starts[anchors], self.still_from[anchors]
        returns = self.host.block_end[waits]
        places = np.searchsorted(starts, returns)
        before = np.searchsorted(since, np.append(np.iinfo(np.int64).min, returns[:-1]), "right")
        for wait, place, first, returned in zip(waits, places, before, returns, strict=True):
            if place == anchors.size or since[place] >= returned or still[place] <= _WAKE_NS:
                continue
            if still[place] == still[first : place + 1].max():
                self.wake[anchors[place]] = wait

    def _releases(self, anchors: Ints) -> list[Ints]:
        """Return the waits whose end may wake a thread, by the thread that waited, in order.

        Threads that launch nothing hand results on: those of its own process, else any.
        """
        host = self.host
        waited = np.flatnonzero(self.awaited != NONE)
        waited = waited[self.work.end[self.awaited[waited]] > host.block_start[waited]]
        waited = waited[~np.isin(host.block_thread[waited], host.call_thread)]
        own = waited[host.block_process[waited] == self._process_of(anchors[0])]
        waited = own if own.size else waited
        waited = waited[np.argsort(host.block_end[waited], kind="stable")]
        threads = np.unique(host.block_thread[waited])
        return [waited[host.block_thread[waited] == thread] for thread in threads]

    def _process_of(self, anchor: int) -> int:
        calls = self.host.call_start.size
        if anchor < calls:
            return int(self.host.call_process[anchor])
        return int(self.host.block_process[anchor - calls])

    def _learn_hand_overs(self, anchors: Ints) -> None:
        """Find which launch a thread that only waits for the GPU was given to wait for."""
        host, calls = self.host, self.host.call_start.size
        for process in np.unique(host.block_process[anchors - calls]):
            here = np.flatnonzero(host.call_process == process)
            here = here[np.argsort(host.call_start[here], kind="stable")]
            mine = anchors[host.block_process[anchors - calls] == process]
            last = np.searchsorted(host.call_start[here], host.block_start[mine - calls], "right")
            known = last > 0
            self.hand_over[mine[known]] = here[last[known] - 1]

    def _ordered(self) -> tuple[NDArray[np.int8], NDArray[np.int32]]:
        """Return what happens, in the trace's order: kind and number."""
        work, host = self.work, self.host
        # In the order of kinds, in which things of one instant happen.
        parts = (host.block_end, host.call_start, host.block_start, work.start)
        order = np.argsort(np.concatenate(parts), kind="stable")
        sizes = [times.size for times in parts]
        kinds = np.repeat(np.array([LET_GO, CALL, BLOCK, BEGIN], dtype=np.int8), sizes)[order]
        firsts = np.cumsum([0, *sizes[:-1]])
        return kinds, (order - firsts[kinds]).astype(np.int32)


def _before_work(host: Host, work: Work) -> Host:
    """Return calls that begin no later than what they launched: clocks may be a little off."""
    has_call = work.call != NONE
    starts = host.call_start.copy()
    np.minimum.at(starts, work.call[has_call], work.start[has_call])
    return replace(host, call_start=starts)


def _members(meeting: Ints) -> tuple[Ints, Ints]:
    """Return the work of all meetings, by meeting, and where that of each begins."""
    met = np.flatnonzero(meeting != NONE)
    members = met[np.argsort(meeting[met], kind="stable")]
    return members, np.append(0, np.cumsum(np.bincount(meeting[met]))).astype(np.int64)


def _durations(work: Work, members: Ints, first_member: Ints) -> Floats:
    found = (work.end - work.start).astype(np.float64)
    sizes = np.diff(first_member)
    if members.size:
        last = np.maximum.reduceat(work.start[members], first_member[:-1][sizes > 0])
        found[members] = work.end[members] - np.repeat(last, sizes[sizes > 0])
    return found


def _of_call(times: Ints, work: Work) -> Ints:
    """Return the time of each work's launching call; its own start where that is not known."""
    found: Ints = work.start.copy()
    known = work.call != NONE
    found[known] = times[work.call[known]]
    return found


def _previous_ends(work: Work) -> Ints:
    """Return the latest end of what started before on the same stream; NONE for the first."""
    found = np.full(work.start.size, NONE)
    for stream in np.unique(work.stream):
        places = np.flatnonzero(work.stream == stream)
        found[places[1:]] = np.maximum.accumulate(work.end[places])[:-1]
    return found


def _medians(values: Ints, groups: Ints, is_counted: NDArray[np.bool_]) -> Floats:
    """Return for each value the median of its group's counted values; 0 where there is none."""
    found = np.zeros(values.size)
    for group in np.unique(groups):
        here = groups == group
        counted = values[here & is_counted]
        found[here] = np.median(counted) if counted.size else 0.0
    return found


def _dependencies(work: Work, previous_end: Ints, is_waiting: NDArray[np.bool_]) -> Ints:
    """Return the work of another stream that ended last before waiting work started, or NONE."""
    found = np.full(work.start.size, NONE, dtype=np.int32)
    for device in np.unique(work.device):
        here = np.flatnonzero(work.device == device)
        ended = here[np.argsort(work.end[here], kind="stable")]
        waiting = here[is_waiting[here]]
        last = np.searchsorted(work.end[ended], work.start[waiting], side="right") - 1
        # Work without length may end where this starts, and come after it.
        while (is_later := (last >= 0) & (ended[last] >= waiting)).any():
            last[is_later] -= 1
        is_found = (last >= 0) & (work.end[ended[last]] > previous_end[waiting])
        found[waiting[is_found]] = ended[last[is_found]]
    return found


def _awaited(work: Work, host: Host) -> Ints:
    """Return the work that each synchronising call waited for, or NONE.

    It is the last of its process that ended during the call and was launched before it; where
    none did, the last that had ended before the call.
    """
    found = np.full(host.block_start.size, NONE)
    launched = _of_call(host.call_start, work)
    for process in np.unique(host.block_process):
        here = np.flatnonzero(work.process == process)
        ended = here[np.argsort(work.end[here], kind="stable")]
        ends = work.end[ended]
        blocks = np.flatnonzero(host.block_process == process)
        last = np.searchsorted(ends, host.block_end[blocks], side="right") - 1
        for block, place in zip(blocks.tolist(), last.tolist(), strict=True):
            first = int(np.searchsorted(ends, host.block_start[block], side="right"))
            during = ended[first : place + 1]
            before = np.flatnonzero(
                (launched[during] < host.block_start[block])
                & (work.start[during] < host.block_end[block])
            )
            if before.size:
                found[block] = ended[first + before[-1]]
            elif first and work.start[ended[first - 1]] < host.block_end[block]:
                # It was done already; with other costs it may not be.
                found[block] = ended[first - 1]
    return found
