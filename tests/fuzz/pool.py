"""A few long-lived processes that judge mutants: bounded, and renewed when they die."""

from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import tempfile
import threading
import warnings
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.fuzz.judge import PATIENCE_S, Outcome, judge
from tests.fuzz.mutants import TRACES, make

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from multiprocessing.connection import Connection

# Addresses, of which libraries reserve far more than they use; resident memory has a bound of
# its own (``judge.MOST_MEMORY_MIB``).
_MOST_ADDRESSES = 8 << 30


@dataclass(frozen=True)
class Draws:
    """What numbers are drawn from: the seeds, the seed of the run, and the share of traces."""

    corpus: Path
    seed: int
    traces: float = TRACES


def judged(
    draws: Draws, numbers: Iterable[int], workers: int, keep: Callable[[Outcome], None]
) -> None:
    """Judge mutants; ``keep`` gets each outcome as it comes, one at a time."""
    waiting = deque(numbers)
    lock = threading.Lock()
    threads = [
        threading.Thread(target=_serve, args=(draws, waiting, lock, keep)) for _ in range(workers)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _serve(
    draws: Draws,
    waiting: deque[int],
    lock: threading.Lock,
    keep: Callable[[Outcome], None],
) -> None:
    """Feed one worker until nothing waits."""
    worker = _Worker(draws)
    try:
        while True:
            with lock:
                if not waiting:
                    return
                number = waiting.popleft()
            outcome = worker.ask(number)
            with lock:
                keep(outcome)
    finally:
        worker.end()


class _Worker:
    """One process and the pipe to it."""

    def __init__(self, draws: Draws) -> None:
        self._draws = draws
        self._start()

    def ask(self, number: int) -> Outcome:
        """Have a mutant judged; a worker that dies or hangs over it is renewed."""
        try:
            self._pipe.send(number)
            if self._pipe.poll(PATIENCE_S):
                found: Outcome = self._pipe.recv()
                return found
            reason = f"hung: no answer within {PATIENCE_S:.0f} s"
        except (EOFError, OSError):
            self._process.join(5)
            reason = f"the process died (exit {self._process.exitcode})"
        self.end()
        self._start()
        return Outcome(number, "", "", "", "defect", reason)

    def end(self) -> None:
        """End the process."""
        self._pipe.close()
        if self._process.is_alive():
            self._process.kill()
        self._process.join()

    def _start(self) -> None:
        # Not forked: DuckDB, polars and Arrow have threads.
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, self._draws), daemon=True)
        self._process.start()
        theirs.close()


def _work(pipe: Connection[Any, Any], draws: Draws) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_ADDRESSES, _MOST_ADDRESSES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("always", RuntimeWarning)
    with tempfile.TemporaryDirectory(prefix="nsysmoe-fuzz-") as name:
        # One for all workers: whole traces are read once. What is kept of one mutant must not be
        # believed of the next.
        os.environ["NSYSMOE_CACHE_DIR"] = str(draws.corpus / "cache")
        while True:
            try:
                number = pipe.recv()
            except EOFError:
                return
            folder = Path(name) / str(number)
            folder.mkdir()
            mutant = make(draws.corpus, draws.seed, number, folder, draws.traces)
            pipe.send(judge(mutant))
            shutil.rmtree(folder)
