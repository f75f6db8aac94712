"""Every engine returns the same, whoever did the work and however often it had to be done."""

from __future__ import annotations

import os
import signal
import time
from threading import Thread
from typing import TYPE_CHECKING

import pytest

from nsysmoe.engines import engine_named
from nsysmoe.engines.processes import Processes, kept_workers
from nsysmoe.errors import InputError
from nsysmoe.resources import Limits, using
from nsysmoe.stopping import Threads
from tests.engines.tasks import (
    Marked,
    allowed,
    doubled,
    killed_always,
    killed_once,
    own_id,
    refused,
    sleeping,
)

if TYPE_CHECKING:
    from concurrent.futures import Future
    from pathlib import Path

    from nsysmoe.engines.engine import EngineName


def kill_when_noted(folder: Path) -> Thread:
    """Kill the process whose id a task leaves in the folder, once it does."""

    def wait() -> None:
        note = folder / "1.pid"
        while not note.exists():
            time.sleep(0.05)
        os.kill(int(note.read_text()), signal.SIGKILL)

    thread = Thread(target=wait, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("name", ["here", "processes"])
def test_results_come_in_the_order_of_the_jobs(name: EngineName) -> None:
    engine = engine_named(name, workers=2)
    assert engine.map(doubled, range(5)) == [0, 2, 4, 6, 8]
    assert engine.map(doubled, []) == []


def test_jobs_that_work_at_once_share_threads_and_memory() -> None:
    limits = Limits(8, 1_600_000_000)
    with using(threads=8):
        assert engine_named("here").share(5, limits) == limits
        assert engine_named("processes", workers=2).share(5, limits) == Limits(4, 800_000_000)
        assert engine_named("processes", workers=64).share(4, limits) == Limits(2, 400_000_000)
        # As many processes as there may be threads.
        assert engine_named("processes").share(100, limits) == Limits(1, 200_000_000)


def test_workers_may_use_what_the_process_that_asks_may() -> None:
    with using(threads=3, memory_bytes=123_000_000, has_cache=False):
        assert Processes(1).map(allowed, [0]) == [(3, 123_000_000, False)]


@pytest.mark.parametrize("name", ["here", "processes"])
def test_what_a_task_refuses_is_one_line(name: EngineName) -> None:
    with pytest.raises(InputError, match=r"^job 0 cannot be done; leave it out$"):
        engine_named(name, workers=2).map(refused, range(3))


def test_a_process_that_was_killed_does_its_work_again(tmp_path: Path) -> None:
    killing = kill_when_noted(tmp_path)
    jobs = [Marked(str(tmp_path), number) for number in range(4)]
    assert Processes(2).map(killed_once, jobs) == [0, 1, 2, 3]
    killing.join(1)
    assert not killing.is_alive()


def test_a_job_that_always_loses_its_worker_is_given_up(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="lost 4 times"):
        Processes(1).map(killed_always, [Marked(str(tmp_path), 0)])


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_workers_stay_between_rounds_and_go_with_the_block() -> None:
    with kept_workers():
        first = set(Processes(2).map(own_id, range(4)))
        # Another arm's engine, and in a thread of its own.
        with Threads(1) as threads:
            assert set(threads.submit(Processes(2).map, own_id, range(4)).result()) == first
        assert all(map(_lives, first))
    assert not any(map(_lives, first))
    assert not set(Processes(2).map(own_id, range(4))) & first


def test_workers_go_with_a_block_that_fails() -> None:
    def fail() -> None:
        with kept_workers():
            found.extend(Processes(1).map(own_id, [0]))
            raise KeyboardInterrupt

    found: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        fail()
    assert found
    assert not any(map(_lives, found))


def test_kept_workers_that_were_lost_are_replaced(tmp_path: Path) -> None:
    jobs = [Marked(str(tmp_path), number) for number in range(4)]
    with kept_workers():
        (first,) = Processes(1).map(own_id, [0])
        os.kill(first, signal.SIGKILL)
        assert Processes(1).map(doubled, range(3)) == [0, 2, 4]
        kill_when_noted(tmp_path)
        assert Processes(2).map(killed_once, jobs) == [0, 1, 2, 3]
        assert Processes(2).map(doubled, range(3)) == [0, 2, 4]


def test_work_in_processes_is_stopped_with_its_threads(tmp_path: Path) -> None:
    def fail() -> None:
        with Threads(1) as threads:
            futures.append(threads.submit(Processes(1).map, sleeping, [Marked(str(tmp_path), 0)]))
            while not (tmp_path / "begun").exists():
                time.sleep(0.05)
            raise KeyboardInterrupt

    futures: list[Future[list[int]]] = []
    with pytest.raises(KeyboardInterrupt):
        fail()
    with pytest.raises(InputError, match="stopped"):
        futures[0].result()
