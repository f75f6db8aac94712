"""Gates, the report and the timeline, as a user meets them."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest

import nsysmoe
from tests.cli.test_cli import run
from tests.conftest import DP2, GRAPHS, TABLE1
from tests.reports.test_browser import CHROMIUM, opened_in_chromium

PAIR = (GRAPHS / "eplb_off.sqlite", GRAPHS / "eplb_on.sqlite")


def test_a_failed_gate_prints_the_table_and_exits_3() -> None:
    pair = (DP2 / "eplb_off.sqlite", DP2 / "eplb_on.sqlite")
    found = run("compare", *pair, "--gate", "idle_ns=5", "--gate", "launches=0")
    assert found.exit_code == 3
    assert "Table 1: EPLB OFF against EPLB ON" in found.stdout
    (line,) = [line for line in found.stderr.splitlines() if line.startswith("gate: ")]
    assert "idle_ns is worse by +30.8" in line
    assert run("compare", *PAIR, "--gate", "wait_ns=1").exit_code == 0


@pytest.mark.parametrize("gate", ["total_time_ns", "=1", "total_time_ns=much", "total_time_ns=nan"])
def test_a_gate_that_is_none_is_wrong_usage(gate: str) -> None:
    assert run("compare", *PAIR, "--gate", gate).exit_code == 2


def test_a_gate_on_no_metric_is_wrong_usage() -> None:
    found = run("compare", *PAIR, "--gate", "speed=1")
    assert found.exit_code == 2
    assert "there is no metric speed; there are total_time_ns," in found.stderr


def test_a_gate_that_cannot_be_judged_exits_1() -> None:
    summaries = (TABLE1 / "eplb_off.csv", TABLE1 / "eplb_on.csv")
    found = run("compare", *summaries, "--gate", "total_time_ns=1")
    assert found.exit_code == 1
    assert "cannot be judged: its change has no interval; give three runs" in found.stderr


def test_csv_by_phase_holds_every_phase() -> None:
    rows = list(csv.DictReader(io.StringIO(
        run("compare", *PAIR, "--by", "phase", "--format", "csv").stdout
    )))  # fmt: skip
    totals = {row["phase"]: int(row["baseline"]) for row in rows if row["metric"] == "launches"}
    assert totals.pop("all") == sum(totals.values())
    assert set(totals) == {"decode", "mixed", "prefill", "unattributed"}


@pytest.mark.parametrize(("by", "captions"), [
    ("phase", ["decode", "mixed", "prefill", "unattributed"]), ("rank", ["rank 0", "rank 1"]),
])  # fmt: skip
def test_table_1_by_phase_and_by_rank(by: str, captions: list[str]) -> None:
    text = run("compare", *PAIR, "--by", by).stdout
    assert re.findall(r"^Table 1 of (.*)$", text, re.MULTILINE) == captions


def test_a_timeline_names_its_step_and_holds_its_kernels() -> None:
    found = json.loads(run("timeline", PAIR[1], "--step", "8", "--format", "json").stdout)
    assert (found["step"], found["choice"]) == (8, "step 8, decode")
    kinds = {row["kind"] for row in found["kernels"]}
    assert kinds == {"moe", "compute", "wait", "transfer", "copy"}
    assert sum(row["kind"] == "moe" for row in found["kernels"]) == 2 * 16
    assert sum(row["name"] == "ncclDevKernel_SendRecv" and row["kind"] == "transfer"
               for row in found["kernels"]) == 14  # fmt: skip
    slowest = json.loads(run("timeline", PAIR[1], "--step", "slowest", "--format", "json").stdout)
    assert slowest["step"] == 2, "step 8 is longer, but not by its workload"


def test_a_step_that_is_not_there() -> None:
    found = run("timeline", PAIR[1], "--step", "99")
    assert found.exit_code == 1
    assert "has no step 99: they go from 0 to 13" in found.stderr
    assert run("timeline", PAIR[1], "--step", "fastest").exit_code == 2


def test_a_report_needs_events() -> None:
    found = run("report", TABLE1 / "eplb_off.csv", TABLE1 / "eplb_on.csv")
    assert found.exit_code == 1
    assert "is a summary of kernels; a report draws events" in found.stderr


def test_pictures_need_a_folder_and_a_kind() -> None:
    for given in (("--static", "svg"), ("--folder", "pictures")):
        found = run("report", *PAIR, *given)
        assert found.exit_code == 2
        assert "--folder and --static go together" in found.stderr


def test_the_json_of_a_report_is_a_comparison(tmp_path: Path) -> None:
    saved = tmp_path / "report.json"
    assert run("report", *PAIR, "-o", saved).exit_code == 0
    assert nsysmoe.Comparison.load(saved) == nsysmoe.compare(*PAIR)
    portraits = json.loads(saved.read_text())["portraits"]
    for portrait in portraits:
        for row in portrait["time_use"]:
            parts = [value for key, value in row.items()
                     if key.endswith("_ns") and key != "window_ns"]  # fmt: skip
            assert sum(parts) == row["window_ns"]
        assert {row["layer"] for row in portrait["layers"]} == set(range(8))
    assert [len(portrait["rearrangements"]) for portrait in portraits] == [0, 1]
    launches = sum(row["launches"] for row in portraits[0]["durations"])
    assert launches == 448


@pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's package chromium")
def test_the_report_opens_offline_with_the_right_numbers(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    assert run("report", *PAIR, "-o", page).exit_code == 0
    assert page.stat().st_size < 10_000_000
    dom, log = opened_in_chromium(page, tmp_path / "profile")
    assert "CONSOLE" not in log, log
    assert "Refused to" not in log
    without_scripts = re.sub(r"<script.*?</script>", "", dom, flags=re.DOTALL)
    critical = nsysmoe.compare(*PAIR).metric("critical_moe_ns")
    assert f"from {critical.baseline / 1e6:,.1f} to {critical.candidate / 1e6:,.1f} ms" in (  # type: ignore[operator]
        without_scripts
    )
    assert without_scripts.index("EPLB ON against EPLB OFF: ") < without_scripts.index("Table 1: ")
    assert dom.count('class="js-plotly-plot') + dom.count(" js-plotly-plot") == 9
