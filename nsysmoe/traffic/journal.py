"""The record of a replay: one line a finished request, appended at once, never rewritten.

A line is given to the operating system as soon as its request has ended, so that ``kill -9`` loses
none; once a second it is forced to the disk. What was cut off within a line is cut away.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

from nsysmoe.errors import TrafficError
from nsysmoe.traffic.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import FileIO
    from pathlib import Path

_SYNC_S = 1.0


class Journal:
    """An open record."""

    def __init__(self, path: Path) -> None:
        _mend(path)
        self._file = path.open("ab", buffering=0)
        self._ends = Event()
        # Beside the sender: a disk takes milliseconds, in which requests would be late.
        self._syncing = Thread(target=self._sync, daemon=True)
        self._syncing.start()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._syncing.join()
        self._file.close()

    def add(self, outcome: Outcome) -> None:
        """Append one finished request.

        Raises:
            TrafficError: The disk is full.
        """
        line = json.dumps(outcome.to_dict(), separators=(",", ":")).encode() + b"\n"
        try:
            _write_whole(self._file, line)
        except OSError as error:
            raise TrafficError(
                f"{self._file.name} cannot be written ({error.strerror or error}); free space "
                "and repeat the command to go on"
            ) from error

    def _sync(self) -> None:
        ended = False
        while not ended:
            ended = self._ends.wait(_SYNC_S)
            # A disk that cannot write says so to the next line as well.
            with contextlib.suppress(OSError):
                os.fsync(self._file.fileno())


def _write_whole(file: FileIO, line: bytes) -> None:
    if file.write(line) != len(line):
        raise OSError(errno.ENOSPC, "no space left on the device")


def read_journal(path: Path) -> Iterator[Outcome]:
    """Return every finished request, in the order in which they ended.

    Raises:
        TrafficError: A line within it is damaged.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.endswith(b"\n"):
                    yield _outcome(path, number, line)
    except OSError as error:
        raise TrafficError(f"{path} cannot be read ({error.strerror})") from error


def _outcome(path: Path, number: int, line: bytes) -> Outcome:
    try:
        row: Any = json.loads(line)
        return Outcome.from_dict(row)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise TrafficError(f"line {number} of {path} is damaged; choose another -o") from error


def _mend(path: Path) -> None:
    """Cut away a last line without end."""
    try:
        with path.open("rb+") as file:
            size = file.seek(0, os.SEEK_END)
            while size:
                start = max(0, size - 4096)
                file.seek(start)
                found = file.read(size - start).rfind(b"\n")
                if found >= 0:
                    file.truncate(start + found + 1)
                    return
                size = start
            file.truncate(0)
    except FileNotFoundError:
        return
