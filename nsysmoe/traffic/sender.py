"""An open loop: every request is sent when it is due, whatever became of those before it.

A closed loop waits for answers before it sends more, and so leaves out just those requests that
would have waited for a slow server (coordinated omission). Here the clock alone decides; where
``most_at_once`` holds requests back, the time that they wait is part of their latency.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import resource
import signal
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

from nsysmoe.traffic.client import Client, Due, Target
from nsysmoe.traffic.outcome import AWAY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from nsysmoe.traffic.outcome import Outcome
    from nsysmoe.traffic.request import Request

# Time to make connections and load modules before the first request is due.
_LEAD_S = 0.1
_SPARE_FILES = 64
# How long a signal may wait while nothing is due.
_LOOK_S = 0.2


class Source(Protocol):
    """Where requests are read."""

    def request(self, number: int) -> Request:
        """Return a request by its place in the order of arrival."""


@dataclass(frozen=True)
class Plan:
    """One session.

    Attributes:
        number: From 1.
        most_at_once: Requests under way at once; None for as many as are due.
        give_up: Requests in a row that did not reach the server before sending stops.
    """

    number: int = 1
    most_at_once: int | None = None
    give_up: int = 100


@dataclass
class Session:
    """What one call of the sender saw; times in seconds.

    Attributes:
        wall_s: From the first due time to the last end.
        sent: Requests that ended.
        held_back: Requests that waited for a place.
        most_waiting: Most of them at one time.
        drift_s: How far the computer's time of day moved away from its steady clock meanwhile.
        ended: ``done``, ``interrupted`` or ``away`` (the server did not answer any more).
    """

    wall_s: float = 0.0
    sent: int = 0
    held_back: int = 0
    most_waiting: int = 0
    drift_s: float = 0.0
    ended: str = "done"

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)


def send_all(
    source: Source,
    due: Sequence[tuple[int, float]],
    target: Target,
    plan: Plan,
    keep: Callable[[Outcome], None],
) -> Session:
    """Send requests when they are due; ``keep`` gets each as it ends.

    SIGINT and SIGTERM stop sending; requests under way are then left without a record, and the
    next session sends them again.

    Args:
        source: Where requests are read.
        due: What ``schedule.intended`` returned.
        target: Where they go.
        plan: What bounds the session.
        keep: Called with each outcome.

    Raises:
        TrafficError: ``keep`` could not write.
    """
    _allow_files(plan.most_at_once or len(due))
    sender = _Sender(source, target, plan, keep)
    # What exists now is not garbage: a full collection would stop the clock for milliseconds.
    gc.collect()
    gc.freeze()
    try:
        return asyncio.run(sender.run(due))
    finally:
        gc.unfreeze()


class _Sender:
    def __init__(
        self,
        source: Source,
        target: Target,
        plan: Plan,
        keep: Callable[[Outcome], None],
    ) -> None:
        self._source, self._target, self._plan, self._keep = source, target, plan, keep
        self._session = Session()
        self._away = self._waiting = 0
        self._failed: BaseException | None = None

    async def run(self, due: Sequence[tuple[int, float]]) -> Session:
        self._stop = asyncio.Event()
        most = self._plan.most_at_once
        self._places = asyncio.Semaphore(most) if most else None
        steady, day = time.perf_counter(), time.time()
        self._start = steady + _LEAD_S
        async with Client(self._target) as self._client:
            with self._signals():
                await self._send_due(due)
        end = time.perf_counter()
        self._session.wall_s = max(0.0, end - self._start)
        self._session.drift_s = (time.time() - day) - (end - steady)
        if self._failed is not None:
            raise self._failed
        return self._session

    async def _send_due(self, due: Sequence[tuple[int, float]]) -> None:
        under_way: set[asyncio.Task[None]] = set()
        for number, at in due:
            if await self._is_stopped_before(self._start + at):
                break
            task = asyncio.create_task(self._one(number, at))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        # Waited for as one: to look at each whenever another ends would take the sender's time.
        rest: asyncio.Future[Any] = asyncio.gather(*under_way, return_exceptions=True)
        stopped: asyncio.Future[Any] = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait({rest, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        for task in under_way:
            task.cancel()
        await asyncio.gather(rest, stopped, return_exceptions=True)

    async def _is_stopped_before(self, moment: float) -> bool:
        """Wait until a moment; tell whether sending was stopped meanwhile."""
        # Others get their turn even where many requests are late.
        await asyncio.sleep(0)
        while not self._stop.is_set() and (left := moment - time.perf_counter()) > 0:
            # A plain sleep is exact and cheap; it ends now and then to see a signal.
            await asyncio.sleep(min(left, _LOOK_S))
        return self._stop.is_set()

    async def _one(self, number: int, at: float) -> None:
        taken = time.perf_counter()
        try:
            request = self._source.request(number)
            async with self._place():
                due = Due(number, self._plan.number, self._start, at, taken, time.perf_counter())
                found = await self._client.send(request, due)
            self._keep(found)
        except Exception as error:  # noqa: BLE001 - raised again by run()
            self._failed = self._failed or error
            self._stop.set()
            return
        self._session.sent += 1
        self._watch(found)

    @contextlib.asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        """Wait for one of the places, and count those that wait."""
        if self._places is None:
            yield
            return
        session = self._session
        if self._places.locked():
            session.held_back += 1
            self._waiting += 1
            session.most_waiting = max(session.most_waiting, self._waiting)
            try:
                await self._places.acquire()
            finally:
                self._waiting -= 1
        else:
            await self._places.acquire()
        try:
            yield
        finally:
            self._places.release()

    def _watch(self, found: Outcome) -> None:
        """Stop where the server is gone: what is left is better sent when it is back."""
        self._away = self._away + 1 if found.error in AWAY else 0
        if self._away >= self._plan.give_up and not self._stop.is_set():
            self._session.ended = "away"
            self._stop.set()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()

        def stop() -> None:
            self._session.ended = "interrupted"
            self._stop.set()

        heard = [
            name
            for name in (signal.SIGINT, signal.SIGTERM)
            # One that is ignored (nohup, the background of a script) stays so.
            if signal.getsignal(name) != signal.SIG_IGN
        ]
        for name in heard:
            # Elsewhere than on the main thread there is nobody to press Ctrl-C.
            with contextlib.suppress(ValueError, RuntimeError):
                loop.add_signal_handler(name, stop)
        try:
            yield
        finally:
            for name in heard:
                with contextlib.suppress(ValueError, RuntimeError):
                    loop.remove_signal_handler(name)


def _allow_files(wanted: int) -> None:
    """Raise the limit of open files as far as the system lets us: a request holds a socket."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = hard if hard != resource.RLIM_INFINITY else max(soft, wanted + _SPARE_FILES)
    target = min(most, max(soft, wanted + _SPARE_FILES))
    if target > soft:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
