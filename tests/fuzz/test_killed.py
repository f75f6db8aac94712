"""Killed at any moment (SIGKILL), a command leaves the old file or the whole new one."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nsysmoe.export.files import runs_of
from nsysmoe.routing.convert import logs_of
from nsysmoe.whole_files import whole_file
from tests.conftest import DP2, GRAPHS, ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

# What is killed is at work, not fetching a kept answer.
pytestmark = pytest.mark.usefixtures("cache_folder")
_OLD = "what was there before"


def _started(*arguments: str | Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "nsysmoe", *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
    )


def _killed(process: subprocess.Popen[bytes], has_come: Callable[[], bool]) -> bool:
    """Kill a process as soon as something has come about; tell whether it was still running."""
    while process.poll() is None and not has_come():
        time.sleep(0.0005)
    was_running = process.poll() is None
    process.kill()
    assert process.wait(60) == (-signal.SIGKILL if was_running else 0)
    return was_running


def _after(seconds: float) -> Callable[[], bool]:
    moment = time.monotonic() + seconds
    return lambda: time.monotonic() > moment


def _partial(folder: Path) -> Callable[[], bool]:
    """Tell when the file that is being written has appeared, and has content."""
    return lambda: any(_size(path) for path in folder.glob(".nsysmoe-*"))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        # It was put into its place since the folder was listed.
        return 0


def _is_whole_page(path: Path) -> bool:
    text = path.read_text(encoding="utf-8")
    return text.startswith("<!doctype html>") and text.rstrip().endswith("</html>")


def test_a_report_is_the_old_one_or_the_new_one(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    command = ("report", DP2 / "eplb_off.sqlite", DP2 / "eplb_on.sqlite", "-o", page)
    chosen = random.Random(3)
    moments = [chosen.uniform(0.2, 3) for _ in range(3)]
    for moment in [*map(_after, moments), _partial(tmp_path)]:
        page.write_text(_OLD)
        _killed(_started(*command), moment)
        assert page.read_text() == _OLD or _is_whole_page(page)


def test_a_table_of_routes_is_whole_or_is_not_there(tmp_path: Path) -> None:
    """The reader of the folder does not take what was left behind for a log."""
    table = tmp_path / "routes.parquet"
    for moment in (_after(0.5), _partial(tmp_path)):
        _killed(_started("routing", "load", GRAPHS / "eplb_off.routed.npz", "-o", table), moment)
        if table.exists():
            assert logs_of([tmp_path]) == [table]
            table.unlink()
        with pytest.raises(Exception, match="holds no routing log"):
            logs_of([tmp_path])


def test_what_a_kill_leaves_is_no_run(tmp_path: Path) -> None:
    """A copy that ended half way, under the name that a partial file has."""
    (tmp_path / ".nsysmoe-abc").write_bytes((DP2 / "eplb_off.sqlite").read_bytes()[:9_000])
    with pytest.raises(Exception, match=r"without \.sqlite"):
        runs_of(tmp_path)


def test_a_block_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(_OLD)

    def fail() -> None:
        with whole_file(path) as partial:
            partial.write_text("{")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_text() == _OLD
    assert [each.name for each in tmp_path.iterdir()] == ["a.json"]


def test_a_saved_comparison_is_whole(tmp_path: Path) -> None:
    saved = tmp_path / "c.json"
    command = ("compare", "--quick", DP2 / "eplb_off.sqlite", DP2 / "eplb_on.sqlite", "-o", saved)
    _killed(_started(*command), _partial(tmp_path))
    if saved.exists():
        assert json.loads(saved.read_text())["schema_version"]
