"""The programs of a capture: started in groups of their own, and gone when it ends.

A program that leaves its group is still found: its environment carries the capture's token, and
its parents are known.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nsysmoe.capture.plan import Command

TOKEN = "NSYSMOE_CAPTURE"  # noqa: S105 - a mark to know our own by, no secret
_PROC = Path("/proc")
_POLL_S = 0.05


@dataclass(frozen=True)
class Process:
    """A process, told from a later one with the same number by when it began."""

    pid: int
    began: int


class Program:
    """A running program and everything that it started."""

    def __init__(self, command: Command, log: Path, token: str) -> None:
        # Of one length, so that none begins another.
        self._token = f"{token}/{uuid.uuid4().hex}"
        environment = {**os.environ, **dict(command.environment), TOKEN: self._token}
        with log.open("ab") as output:
            self._popen = subprocess.Popen(  # noqa: S603 - the plan's own argv, as a list
                command.argv,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.pid = self._popen.pid

    def status(self) -> int | None:
        """Return the exit status, negative for a signal; None while it runs.

        Its number stays taken until ``end``, so that what is ended is never another's.
        """
        seen = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if seen is None:
            return None
        return seen.si_status if seen.si_code == os.CLD_EXITED else -seen.si_status

    def interrupt(self) -> None:
        """Ask it to end its work and to write what it has."""
        _signal_group(self.pid, signal.SIGINT)

    def wait(self, timeout_s: float) -> int | None:
        """Wait for the end; None where it did not come in time."""
        limit = time.monotonic() + timeout_s
        while (status := self.status()) is None and time.monotonic() < limit:
            time.sleep(_POLL_S)
        return status

    def end(self, grace_s: float) -> None:
        """End it and all that it started: asked first, then killed."""
        known = family(self.pid) | _marked_families(self._token)
        _signal_group(self.pid, signal.SIGTERM)
        for process in known:
            _signal(process, signal.SIGTERM)
        limit = time.monotonic() + grace_s
        while time.monotonic() < limit and (self.status() is None or _any_lives(known)):
            time.sleep(_POLL_S)
        _signal_group(self.pid, signal.SIGKILL)
        for process in known:
            _signal(process, signal.SIGKILL)
        self._popen.wait()
        sweep(self._token)


def sweep(token: str) -> int:
    """Kill every process that carries a token, and what it started; return how many there were.

    The token of a capture is the beginning of those of its programs.
    """
    found = _marked_families(token)
    for process in found:
        _signal(process, signal.SIGKILL)
    limit = time.monotonic() + 5.0
    while time.monotonic() < limit and _any_lives(found):
        time.sleep(_POLL_S)
    return len(found)


def _marked_families(token: str) -> set[Process]:
    """Return marked processes and what they started, whose environment may be overwritten."""
    return {process for one in marked(token) for process in {one, *family(one.pid)}}


def marked(token: str) -> set[Process]:
    """Return the processes whose environment carries a token, or one that begins so."""
    mark = f"{TOKEN}={token}".encode()
    found = set()
    for pid in _pids():
        try:
            variables = (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
        except OSError:  # Another user's, or gone.
            continue
        if any(one.startswith(mark) for one in variables) and (process := _process(pid)):
            found.add(process)
    return found


def family(root: int) -> set[Process]:
    """Return a process and its descendants, of those that live."""
    children: dict[int, list[int]] = {}
    for pid in _pids():
        if fields := _stat(pid):
            children.setdefault(int(fields[1]), []).append(pid)
    found, front = [], [root]
    while front:
        pid = front.pop()
        found.append(pid)
        front += children.get(pid, [])
    return {process for process in map(_process, found) if process}


@dataclass(frozen=True)
class Said:
    """What a program printed, and how it ended."""

    status: int
    output: str
    errors: str


def ask(argv: Sequence[str], timeout_s: float = 60.0) -> Said | None:
    """Run a short program and return what it prints; None where it cannot be run or hangs."""
    try:
        done = subprocess.run(  # noqa: S603 - arguments as a list
            argv,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=timeout_s,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return Said(done.returncode, done.stdout, done.stderr)


def _pids() -> list[int]:
    return [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit()]


def _stat(pid: int) -> list[str] | None:
    """Return the fields of a process after its name, which may hold spaces."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()


def _process(pid: int) -> Process | None:
    fields = _stat(pid)
    # State Z: it has ended, and waits for its parent to look.
    return None if fields is None or fields[0] == "Z" else Process(pid, int(fields[19]))


def _any_lives(processes: set[Process]) -> bool:
    return any(_process(process.pid) == process for process in processes)


def _signal(process: Process, number: int) -> None:
    if _process(process.pid) == process:
        try:
            os.kill(process.pid, number)
        except (ProcessLookupError, PermissionError):
            return


def _signal_group(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return
