"""Folders that go with the process that made them, however it ends."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import time
import uuid
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from nsysmoe.stopping import undone

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOCK = "lock"
# What the lock is called until it is held: whoever sweeps then finds it held, or not at all.
_FREE = "free"
# A folder without a lock is one that is just being begun, or was just taken away.
_BEGUN_S = 60
# Names end so: what a user called alike is no folder of ours.
_NAMED = "[0-9a-f]" * 32


@contextmanager
def held_folder(parent: Path, prefix: str = "") -> Iterator[Path]:
    """Make a folder that is held by a lock while the block runs, and removed after it.

    What a killed process left is removed by ``sweep``: its lock is held by nobody.

    Raises:
        OSError: There is no place to write.
    """
    folder = parent / f"{prefix}{uuid.uuid4().hex}"
    folder.mkdir(mode=0o700)
    gone = partial(shutil.rmtree, folder, ignore_errors=True)
    try:
        with undone(gone), (folder / _FREE).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            (folder / _FREE).rename(folder / LOCK)
            yield folder
    finally:
        gone()


def sweep(parent: Path, prefix: str = "") -> None:
    """Remove the folders of processes that are no more."""
    for folder in left(parent, prefix):
        shutil.rmtree(folder, ignore_errors=True)


def left(parent: Path, prefix: str = "") -> list[Path]:
    """Return the folders of ``held_folder`` whose processes are no more.

    Args:
        parent: Where they were made.
        prefix: How their names begin; ``*`` stands for anything.
    """
    try:
        return [folder for folder in parent.glob(f"{prefix}{_NAMED}") if _is_left(folder)]
    except OSError:
        return []


def _is_left(folder: Path) -> bool:
    """Tell whether a folder is ours and no process that lives holds it."""
    try:
        found = folder.lstat()
        # What others called alike in a folder that all share is theirs, and so is a link's target.
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            return False
        with (folder / LOCK).open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    except FileNotFoundError:
        try:
            return time.time() - folder.lstat().st_mtime > _BEGUN_S
        except OSError:
            return False
    except OSError:
        return False
