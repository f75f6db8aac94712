"""An engine of processes on this machine."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from threading import Lock
from typing import TYPE_CHECKING, Any

from nsysmoe.engines.engine import RETRIES, Job, Result, outcome, results
from nsysmoe.errors import InputError, NsysmoeError
from nsysmoe.resources import resources

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nsysmoe.resources import Limits

# Two arms may be read at once: their pools take turns, so that workers are counted once.
_turn = Lock()


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
        found: dict[int, Result | NsysmoeError] = {}
        for attempt in range(RETRIES + 1):
            left = [number for number in range(len(jobs)) if number not in found]
            if not left:
                break
            workers = max(1, min(self._workers >> attempt, len(left)))
            with _turn:
                found |= _round(workers, task, {number: jobs[number] for number in left})
        if len(found) < len(jobs):
            raise InputError(
                f"a worker process was lost {RETRIES + 1} times (out of memory?); use fewer with "
                "--workers, or leave other work off this machine"
            )
        return results([found[number] for number in range(len(jobs))])


def _round(
    workers: int, task: Callable[[Job], Result], jobs: dict[int, Job]
) -> dict[int, Result | NsysmoeError]:
    """Do jobs in a new pool; those that it lost are missing in what comes back."""
    # DuckDB and polars run threads, which a forked process would lack.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        futures: dict[int, Future[Any]] = {}
        try:
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
