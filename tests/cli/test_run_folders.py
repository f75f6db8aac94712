"""The folder of one run stands for its trace wherever one trace is asked for."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.cli.test_cli import run
from tests.conftest import ROOT

RUNS = ROOT / "fixtures" / "pairs" / "on"
RUN = RUNS / "run-1"
QUERY = "select count(*) as launches from kernels"
ALONE = (
    "bound", "collectives", "host", "imbalance", "kernels", "phases", "stalls", "summary",
    "timeline", "waits", "whatif",
)  # fmt: skip
COMMANDS = {**dict.fromkeys(ALONE, ()), "sql": (QUERY,)}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_folder_of_a_run_is_its_trace(command: str) -> None:
    more = (*COMMANDS[command], "--format", "json")
    of_folder = run(command, RUN, *more)
    assert of_folder.exit_code == 0, of_folder.stderr
    assert of_folder.stdout == run(command, RUN / "trace.sqlite", *more).stdout


@pytest.mark.parametrize("command", sorted(COMMANDS.keys() - {"summary"}))
def test_a_folder_of_runs_is_refused_where_one_trace_is_asked_for(command: str) -> None:
    found = run(command, RUNS, *COMMANDS[command])
    assert found.exit_code == 1
    assert found.stdout == ""
    (line,) = found.stderr.splitlines()
    assert line.startswith(f"Error: {RUNS} holds 3 ")
    assert str(RUN / "trace.sqlite") in line


def test_a_trace_in_a_folder_is_never_overwritten(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(RUN, tmp_path / "run"))
    trace = folder / "trace.sqlite"
    for command in ("summary", "stalls"):
        found = run(command, folder, "--format", "json", "-o", trace)
        assert found.exit_code == 1
        assert "is an input" in found.stderr
    assert trace.read_bytes() == (RUN / "trace.sqlite").read_bytes()
    assert run("stalls", folder, "-o", folder / "stalls.json").exit_code == 0
