"""Every engine returns the same, whoever did the work and however often it had to be done."""

from __future__ import annotations

import os
import signal
import time
from threading import Thread
from typing import TYPE_CHECKING

import pytest

from nsysmoe.engines import engine_named
from nsysmoe.engines.processes import Processes
from nsysmoe.errors import InputError
from tests.engines.tasks import Marked, doubled, killed_always, killed_once, refused

if TYPE_CHECKING:
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
    assert engine.threads(5) >= 1


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
