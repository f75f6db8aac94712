"""Work that another thread can stop, and what goes away where the process ends before it.

A thread that waits inside DuckDB or SQLite, or for another process, hears of nothing. What it
waits for says here how it is stopped; whoever wants the end says ``stop``.
"""

from __future__ import annotations

import os
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Future

Result = TypeVar("Result")

# How long a thread may wait before it looks whether somebody asked for the end: polars' handler
# of SIGINT has the system go on with a wait that the signal broke off.
_LOOK_S = 0.05

# The groups of threads that the present work belongs to.
_groups: ContextVar[tuple[object, ...]] = ContextVar("_groups", default=())
_stops: dict[object, tuple[tuple[object, ...], Callable[[], object]]] = {}
_undos: dict[object, Callable[[], object]] = {}


@contextmanager
def stoppable(stop: Callable[[], object]) -> Iterator[None]:
    """Let what the block waits for be stopped.

    Args:
        stop: Ends the wait with an error, from any thread; it may be called again and again, and
            where nothing is waited for.
    """
    key = object()
    _stops[key] = (_groups.get(), stop)
    try:
        yield
    finally:
        del _stops[key]


@contextmanager
def undone(undo: Callable[[], object]) -> Iterator[None]:
    """Have something undone where the process ends by ``end`` while the block runs."""
    key = object()
    _undos[key] = undo
    try:
        yield
    finally:
        del _undos[key]


def stop(group: object | None = None) -> None:
    """Stop what is waited for; once more for what is begun afterwards.

    Args:
        group: The ``Threads`` whose work is meant; all of the process where left out.
    """
    for groups, call in list(_stops.values()):
        if group is None or group in groups:
            with suppress(Exception):
                call()


def end(status: int) -> None:
    """End the process now, whatever its threads do; nothing of what ``undone`` names is left."""
    stop()
    for undo in reversed(list(_undos.values())):
        with suppress(Exception):
            undo()
    os._exit(status)


class Threads:
    """Threads for a block; what they do is stopped, and waited for, where the block fails."""

    def __init__(self, most: int) -> None:
        self._threads = ThreadPoolExecutor(most)
        self._futures: list[Future[Any]] = []

    def __enter__(self) -> Threads:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            while wait(self._futures, _LOOK_S).not_done:
                stop(self)
        self._threads.shutdown()

    def submit(self, task: Callable[..., Result], *args: Any, **options: Any) -> Future[Result]:
        """Begin a task in a thread."""
        context = copy_context()
        context.run(_groups.set, (*_groups.get(), self))
        future: Future[Result] = self._threads.submit(context.run, task, *args, **options)
        self._futures.append(future)
        return future


def results(futures: Sequence[Future[Result]]) -> list[Result]:
    """Return what tasks returned, or raise what one of them did as soon as it did."""
    while True:
        done, left = wait(futures, _LOOK_S, FIRST_EXCEPTION)
        if not left or any(future.exception() for future in done):
            # In their order: two that are refused at one time give the same answer each time.
            return [future.result() for future in futures if future in done]
