"""Tasks for workers in other processes, which find them by their module."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, NamedTuple

from nsysmoe.errors import InputError
from nsysmoe.resources import resources


class Marked(NamedTuple):
    """A job that is done in a process whose id it leaves in a file."""

    folder: str
    number: int
    task: Any = None
    job: Any = None


def doubled(number: int) -> int:
    return 2 * number


def allowed(_number: int) -> tuple[int | None, int | None, bool]:
    found = resources()
    return found.threads, found.memory_bytes, found.has_cache


def refused(number: int) -> int:
    raise InputError(f"job {number} cannot be done; leave it out")


def killed_once(marked: Marked) -> Any:
    """Do the job, and the first time wait then to be killed, with all written and none told."""
    result = marked.task(marked.job) if marked.task else marked.number
    note = Path(marked.folder) / f"{marked.number}.pid"
    if marked.number == 1 and not note.exists():
        unfinished = note.with_suffix(".writing")
        unfinished.write_text(str(os.getpid()))
        unfinished.rename(note)
        time.sleep(120)
    return result


def killed_always(marked: Marked) -> int:
    os.kill(os.getpid(), 9)
    return marked.number


def own_id(_number: int) -> int:
    """Tell which process does the job."""
    time.sleep(0.2)
    return os.getpid()


def sleeping(marked: Marked) -> int:
    (Path(marked.folder) / "begun").touch()
    time.sleep(120)
    return marked.number
