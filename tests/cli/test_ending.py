"""Signals end a command soon, wherever it waits, and leave nothing: no file, folder or process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nsysmoe.cli import exits
from tests.conftest import DP2, PAIRS, ROOT
from tests.reports.browsers import browsers_of, is_running, never_answers
from tests.waiting import becomes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_OFF, _ON = str(DP2 / "eplb_off.sqlite"), str(DP2 / "eplb_on.sqlite")
# What would take days, or ten minutes, is over in this: machines are shared.
_SOON_S = 20
_ENDS = {
    signal.SIGINT: (exits.INTERRUPTED, "Interrupted\n"),
    signal.SIGTERM: (exits.TERMINATED, "Terminated\n"),
}


def _members(session: int) -> list[int]:
    """Return the processes of a session, without those that only wait to be collected."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] != "Z":
                found.append(int(folder.name))
    return found


def _becomes(condition: Callable[[], bool]) -> bool:
    return becomes(condition, limit_s=60)


class _Command:
    """A command as a terminal starts it, in a session and with temporary folders of its own."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.ready = folder / "ready"
        self.temporary = folder / "temporary"
        self.temporary.mkdir()
        self.process = subprocess.Popen(
            [sys.executable, "-m", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            start_new_session=True,
            env=os.environ | {"READY": str(self.ready), "TMPDIR": str(self.temporary)},
        )

    def ends(self, number: signal.Signals, *, all_of_it: bool = False) -> None:
        """Send a signal to the process, or as Ctrl-C does to all that it started; judge its end."""
        (os.killpg if all_of_it else os.kill)(self.process.pid, number)
        stdout, stderr = self.process.communicate(timeout=_SOON_S)
        assert (self.process.returncode, stderr) == _ENDS[number]
        assert stdout == ""
        assert list(self.temporary.iterdir()) == []
        assert _becomes(lambda: not _members(self.process.pid))


@pytest.fixture
def started(tmp_path: Path, cache_folder: Path) -> Iterator[Callable[..., _Command]]:
    del cache_folder
    commands: list[_Command] = []

    def start(*words: str) -> _Command:
        commands.append(_Command(tmp_path, *words))
        return commands[-1]

    yield start
    for command in commands:
        for pid in _members(command.process.pid):
            os.kill(pid, signal.SIGKILL)
        command.process.communicate()


@pytest.mark.parametrize("number", list(_ENDS))
@pytest.mark.parametrize("way", ["duckdb", "sqlite", "deaf"])
def test_a_comparison_that_would_take_days(
    tmp_path: Path, started: Callable[..., _Command], way: str, number: signal.Signals
) -> None:
    """In threads that wait in DuckDB, or in SQLite, and where nobody can be told."""
    output = tmp_path / "c.json"
    command = started("tests.cli.stuck", way, "compare", _OFF, _ON, "-o", str(output))
    assert _becomes(command.ready.exists)
    time.sleep(0.5)
    command.ends(number)
    assert not output.exists()


def test_a_query_in_the_main_thread_that_would_take_days(
    started: Callable[..., _Command],
) -> None:
    """DuckDB turns the interrupt into an error of its own, which would be told as a defect."""
    command = started("tests.cli.stuck", "duckdb", "summary", _OFF)
    assert _becomes(command.ready.exists)
    time.sleep(0.5)
    command.ends(signal.SIGINT)


@pytest.mark.parametrize("number", list(_ENDS))
def test_an_nsys_that_does_not_come_back(
    tmp_path: Path, started: Callable[..., _Command], number: signal.Signals
) -> None:
    reports = []
    for name in ("off.nsys-rep", "on.nsys-rep"):
        (tmp_path / name).write_bytes(b"NSYS")
        reports.append(str(tmp_path / name))
    nsys = tmp_path / "nsys"
    nsys.write_text('#!/bin/sh\n[ "$2" = --help ] && exit\ntouch "$READY"\nsleep 600\n')
    nsys.chmod(0o755)
    command = started("nsysmoe", "compare", *reports, "--nsys", str(nsys))
    assert _becomes(command.ready.exists)
    command.ends(number)


@pytest.mark.parametrize(
    ("number", "all_of_it"),
    [(signal.SIGINT, False), (signal.SIGINT, True), (signal.SIGTERM, False)],
)
def test_worker_processes_end_with_their_command(
    started: Callable[..., _Command], number: signal.Signals, all_of_it: bool
) -> None:
    arms = [str(PAIRS / name) for name in ("off", "on")]
    command = started("nsysmoe", "compare", *arms, "--engine", "processes", "--workers", "2")
    # Python's own, and two workers.
    assert _becomes(lambda: len(_members(command.process.pid)) == 4)
    command.ends(number, all_of_it=all_of_it)


@pytest.mark.skipif(find_spec("kaleido") is None, reason="pip install 'nsysmoe[static]'")
@pytest.mark.parametrize("number", list(_ENDS))
def test_a_browser_that_does_not_come_back(
    tmp_path: Path,
    started: Callable[..., _Command],
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
) -> None:
    browser = never_answers(tmp_path)
    monkeypatch.setenv("BROWSER_PATH", str(browser))
    folder, table = tmp_path / "pictures", ROOT / "fixtures" / "sweep" / "grid.parquet"
    words = ("figures", str(table), "-q", "-o", str(tmp_path / "page.html"))
    command = started("nsysmoe", *words, "--folder", str(folder), "--static", "svg")
    assert _becomes(lambda: bool(browsers_of(browser)))
    command.ends(number)
    assert _becomes(lambda: not any(is_running(pid) for pid in browsers_of(browser)))
    assert {path.suffix for path in folder.iterdir()} == {".csv"}


def test_workers_of_a_command_that_was_killed_end(started: Callable[..., _Command]) -> None:
    arms = [str(PAIRS / name) for name in ("off", "on")]
    command = started("nsysmoe", "compare", *arms, "--engine", "processes", "--workers", "2")
    assert _becomes(lambda: len(_members(command.process.pid)) == 4)
    command.process.kill()
    command.process.communicate(timeout=_SOON_S)
    assert _becomes(lambda: not _members(command.process.pid))
