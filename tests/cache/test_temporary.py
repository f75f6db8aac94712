"""Temporary folders of killed calls: told by ``doctor``, removed by ``cache clear``, no others."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

import nsysmoe
from nsysmoe.cache import left_folders, own_folder
from nsysmoe.cli import main
from nsysmoe.errors import InputError
from tests.conftest import ROOT

if TYPE_CHECKING:
    from nsysmoe.findings import Finding

_HOLDER = """
import sys, time
from nsysmoe.cache import own_folder
with own_folder("trace") as folder:
    (folder / "tables.duckdb").write_bytes(bytes(5000))
    print(folder, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def place(tmp_path: Path, cache_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for temporary files of the test's own, also for what it starts."""
    del cache_folder
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def killed() -> Path:
    """Return the folder of a process that was killed while it held it."""
    command = [sys.executable, "-c", _HOLDER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        process.kill()
    assert folder.is_dir()
    return folder


def told() -> list[Finding]:
    found = nsysmoe.doctor(sys.executable).findings
    return [finding for finding in found if finding.code == "left_folders"]


def clear() -> str:
    found = CliRunner().invoke(main, ["cache", "clear"])
    assert found.exit_code == 0
    return found.stdout


def test_a_killed_call_is_told_and_cleared(place: Path) -> None:
    assert told() == []
    folder = killed()
    assert folder.parent == place
    assert left_folders() == [(folder, 5000)]
    finding = told()[0]
    assert "nsysmoe cache clear removes them" in finding.message
    assert finding.evidence == {"folders": [str(folder)], "bytes": 5000}
    assert folder.exists(), "doctor changes nothing"
    assert clear() == (
        "Removed 0 answers, 0 B\nRemoved 1 temporary folders of killed calls, 5.0 kB\n"
    )
    assert told() == []
    assert list(place.iterdir()) == []
    assert clear() == "Removed 0 answers, 0 B\n"


def test_folders_of_those_that_live_and_of_others_stay(place: Path) -> None:
    by_hand = place / "nsysmoe-trace-of-monday"
    by_hand.mkdir()
    os.utime(by_hand, (1e9, 1e9))
    with own_folder("pictures") as held:
        assert told() == []
        clear()
        assert held.is_dir()
    assert list(place.iterdir()) == [by_hand]


def test_the_next_call_removes_what_any_kind_left(place: Path) -> None:
    folder = killed()
    with own_folder("export") as held:
        assert list(place.iterdir()) == [held]
    assert not folder.exists()


def test_a_place_that_cannot_be_written(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(place / "none"))
    with (
        pytest.raises(InputError, match="name another folder by TMPDIR"),
        own_folder("trace"),
    ):
        pass
