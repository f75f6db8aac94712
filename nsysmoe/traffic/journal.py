"""The record of a replay: one line a finished request, appended at once, never rewritten.

A thread gives each line to the operating system as soon as its request has ended, so that a disk
that hangs for a while makes no request late. ``kill -9`` loses the lines that still wait for the
disk, none where it keeps up, and their requests are sent again. Once a second what was written is
forced to the disk. What was cut off within a line is cut away.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from queue import Empty, Queue
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

from nsysmoe.errors import TrafficError
from nsysmoe.traffic.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import FileIO
    from pathlib import Path

_SYNC_S = 1.0
# About 20 MB; beyond it the sender waits.
_MOST_WAITING = 1 << 16
_MOST_AT_ONCE = 256


class Journal:
    """An open record."""

    def __init__(self, path: Path) -> None:
        _mend(path)
        self._file = path.open("ab", buffering=0)
        self._waiting: Queue[Outcome | None] = Queue(_MOST_WAITING)
        self._failed: OSError | None = None
        self._ends = Event()
        # Beside the sender: a disk takes milliseconds, in which requests would be late.
        self._beside = [Thread(target=each, daemon=True) for each in (self._write, self._sync)]
        for each in self._beside:
            each.start()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Wait until everything is on the disk.

        Raises:
            TrafficError: Not everything is, and nothing else went wrong before.
        """
        self._waiting.put(None)
        self._beside[0].join()
        self._ends.set()
        self._beside[1].join()
        self._file.close()
        if kind is None:
            self._check()

    def add(self, outcome: Outcome) -> None:
        """Append one finished request; waits only where 65,536 lines wait for the disk.

        Raises:
            TrafficError: The disk is full, or fails.
        """
        self._check()
        self._waiting.put(outcome)

    def _check(self) -> None:
        if (error := self._failed) is not None:
            raise TrafficError(
                f"{self._file.name} cannot be written ({error.strerror or error}); free space "
                "and repeat the command to go on"
            ) from error

    def _write(self) -> None:
        """Write what waits, many lines at once where the disk was slow."""
        is_open = True
        while is_open:
            taken = [self._waiting.get()]
            with contextlib.suppress(Empty):
                while len(taken) < _MOST_AT_ONCE:
                    taken.append(self._waiting.get_nowait())
            is_open = None not in taken
            lines = [_line(outcome) for outcome in taken if outcome is not None]
            # After a failure what comes is passed over: the sender learns of it and stops.
            if lines and self._failed is None:
                try:
                    _write_whole(self._file, b"".join(lines))
                except OSError as error:
                    self._failed = error

    def _sync(self) -> None:
        ended = False
        while not ended:
            ended = self._ends.wait(_SYNC_S)
            # A disk that cannot write says so to the next line as well.
            with contextlib.suppress(OSError):
                os.fsync(self._file.fileno())


def _line(outcome: Outcome) -> bytes:
    return json.dumps(outcome.to_dict(), separators=(",", ":")).encode() + b"\n"


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
