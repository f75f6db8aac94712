"""An engine of processes on this machine."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from threading import Event, Lock
from typing import TYPE_CHECKING, Any

from nsysmoe.engines.engine import RETRIES, Job, Result, outcome, results
from nsysmoe.engines.worker import masked, watch
from nsysmoe.errors import InputError, NsysmoeError
from nsysmoe.resources import resources
from nsysmoe.stopping import Threads, stoppable
from nsysmoe.stopping import results as waited

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from multiprocessing.connection import Connection

    from nsysmoe.resources import Limits

# Two arms may be read at once: they take turns, so that workers are counted once.
_turn = Lock()
_PATIENCE_S = 0.1


class Processes:
    """Jobs in processes of this machine; those of a pool that lost one are done again.

    Args:
        workers: Processes at once; one for each thread that this process may use where left out.
    """

    def __init__(self, workers: int | None = None) -> None:
        self._workers = workers or resources().threads or os.cpu_count() or 1

    def share(self, jobs: int, limits: Limits) -> Limits:
        """Return what each of so many jobs may use: a part, as many work at once.

        Cores are those of the whole process: one pool works at a time.
        """
        at_once = min(self._workers, max(jobs, 1))
        cores = resources().limits().shared(at_once).threads
        return replace(limits.shared(at_once), threads=cores)

    def map(self, task: Callable[[Job], Result], jobs: Sequence[Job]) -> list[Result]:
        """Do the task for every job, as ``Engine`` has it.

        A worker that ends takes its pool along: what the pool had not finished is done again, by
        fewer processes at once, since memory is what workers end for.
        """
        # In a thread: an interrupt of the main one must not meet a process that is half started.
        with Threads(1) as threads:
            return waited([threads.submit(self._done, task, jobs)])[0]

    def _done(self, task: Callable[[Job], Result], jobs: Sequence[Job]) -> list[Result]:
        found: dict[int, Result | NsysmoeError] = {}
        with _one_at_a_time() as is_stopped, kept_workers() as kept, stoppable(kept.lose):
            for attempt in range(RETRIES + 1):
                left = {n: job for n, job in enumerate(jobs) if n not in found}
                if not left or is_stopped():
                    break
                done = _round(kept.pool(max(1, self._workers >> attempt)), task, left)
                found |= done
                if len(done) < len(left):
                    kept.close()
        if is_stopped():
            raise InputError("the work in processes was stopped; ask again")
        if len(found) < len(jobs):
            raise InputError(
                f"a worker process was lost {RETRIES + 1} times (out of memory?); use fewer with "
                "--workers, or leave other work off this machine"
            )
        return results([found[number] for number in range(len(jobs))])


class Workers:
    """A pool that stays between rounds: started when it is wanted, of the size that is wanted."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None
        self._size = 0
        self._line: Connection | None = None

    def pool(self, size: int) -> ProcessPoolExecutor:
        """Return a pool of so many processes at most; they start as jobs come."""
        if self._pool is None or self._size != size:
            self.close()
            # DuckDB and polars run threads, which a forked process would lack.
            context = multiprocessing.get_context("spawn")
            theirs, self._line = context.Pipe(duplex=False)
            self._pool = ProcessPoolExecutor(size, context, watch, (theirs,))
            self._size = size
        return self._pool

    def lose(self) -> None:
        """End the processes, whatever they do; what they were to do is lost."""
        if self._line is not None:
            self._line.close()

    def close(self) -> None:
        """Wait until the processes have ended."""
        if self._pool is not None:
            self._pool.shutdown()
            self.lose()
        self._pool = None


_kept: ContextVar[Workers | None] = ContextVar("_kept", default=None)


@contextmanager
def kept_workers() -> Iterator[Workers]:
    """Keep worker processes from one round to the next while the block runs.

    They end with the block. Starting one, imports included, takes a second of a core.
    """
    if (known := _kept.get()) is not None:
        yield known
        return
    workers = Workers()
    token = _kept.set(workers)
    try:
        with stoppable(workers.lose):
            yield workers
    except BaseException:
        workers.lose()
        raise
    finally:
        _kept.reset(token)
        workers.close()


@contextmanager
def _one_at_a_time() -> Iterator[Callable[[], bool]]:
    """Wait for the turn; yield what tells whether the block was stopped.

    Raises:
        InputError: It was, before its turn came.
    """
    stopped = Event()
    with stoppable(stopped.set):
        while not _turn.acquire(timeout=_PATIENCE_S):
            if stopped.is_set():
                raise InputError("the work in processes was stopped; ask again")
        try:
            yield stopped.is_set
        finally:
            _turn.release()


def _round(
    pool: ProcessPoolExecutor, task: Callable[[Job], Result], jobs: dict[int, Job]
) -> dict[int, Result | NsysmoeError]:
    """Do jobs in a pool; those that it lost are missing in what comes back."""
    futures: dict[int, Future[Any]] = {}
    try:
        with masked():
            for number, job in jobs.items():
                futures[number] = pool.submit(outcome, task, job, resources())
    except BrokenProcessPool:
        # Lost while jobs were still handed out: the rest is for the next pool.
        pass
    return {
        number: future.result()
        for number, future in futures.items()
        if not isinstance(future.exception(), BrokenProcessPool)
    }
