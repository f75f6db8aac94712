"""Three captured pairs: what repeated runs say, against a plain reading of their files."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from statistics import fmean, median
from typing import TYPE_CHECKING

import pytest

import nsysmoe
from nsysmoe.analysis.one_trace.structure import imbalance
from nsysmoe.reports import numbers
from nsysmoe.reports.pages.comparing.comparison import comparison_page
from tests.conftest import PAIRS
from tests.oracle import kernel_durations

if TYPE_CHECKING:
    from pathlib import Path

    from nsysmoe import Comparison
    from nsysmoe.analysis.comparing.comparison import Change


@pytest.fixture(scope="module")
def pairs() -> Comparison:
    return nsysmoe.compare(PAIRS / "off", PAIRS / "on")


def runs(arm: str) -> list[Path]:
    return sorted((PAIRS / arm).glob("run-*"))


def moe_by_device(path: Path) -> list[int]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        rows = database.execute(
            'SELECT sum(k."end" - k.start) FROM CUPTI_ACTIVITY_KIND_KERNEL k JOIN StringIds s '
            "ON s.id = k.shortName WHERE s.value = 'fused_moe_kernel' GROUP BY k.deviceId"
        )
        return [total for (total,) in rows]


@pytest.mark.parametrize(("arm", "side"), [("off", "baseline"), ("on", "candidate")])
def test_values_are_means_over_runs(pairs: Comparison, arm: str, side: str) -> None:
    traces = [run / "trace.sqlite" for run in runs(arm)]
    assert len(traces) == 3
    durations = [kernel_durations(trace) for trace in traces]
    expected = {
        "total_time_ns": fmean(sum(each["fused_moe_kernel"]) for each in durations),
        "max_ns": fmean(max(each["fused_moe_kernel"]) for each in durations),
        "nccl_total_ns": fmean(
            sum(sum(values) for name, values in each.items() if name.startswith("nccl"))
            for each in durations
        ),
        "busiest_rank_ns": fmean(max(moe_by_device(trace)) for trace in traces),
    }
    for key, value in expected.items():
        assert getattr(pairs.metric(key), side) == pytest.approx(value, rel=1e-12), key


def test_the_total_sees_nothing_and_balance_is_better(pairs: Comparison) -> None:
    assert pairs.metric("total_time_ns").verdict == "within_noise"
    assert pairs.metric("wall_time_ns").verdict == "within_noise"
    assert pairs.metric("excess_moe_ns").verdict == "better"
    assert pairs.metric("critical_moe_ns").verdict == "better"


@pytest.mark.parametrize(("arm", "side"), [("off", "baseline"), ("on", "candidate")])
def test_what_users_saw_is_the_mean_over_runs(pairs: Comparison, arm: str, side: str) -> None:
    records = [json.loads((run / "run.json").read_text(encoding="utf-8")) for run in runs(arm)]
    for suffix, position in (("", -1), ("_unprofiled", -2)):
        requests = [record["runs"][position]["requests"] for record in records]
        expected = fmean(median(one["ttft_s"] for one in round_) for round_ in requests)
        row = next(row for row in pairs.latency if row["metric"] == "ttft_p50_s")
        assert row[side + suffix] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("arm", "side"), [("off", "baseline"), ("on", "candidate")])
def test_phases_are_means_over_runs_with_intervals(pairs: Comparison, arm: str, side: str) -> None:
    """Against each run asked alone."""
    alone = [
        {
            row["phase"]: row["critical_ns"]
            for row in imbalance(run / "trace.sqlite", by="phase").rows
        }
        for run in runs(arm)
    ]
    parts = {part.key: part for part in pairs.parts if part.kind == "phase"}
    for phase in ("decode", "mixed", "prefill"):
        change = next(one for one in parts[phase].metrics if one.metric == "critical_moe_ns")
        expected = [row[phase] for row in alone]
        assert getattr(change, f"{side}_values") == tuple(expected)
        assert getattr(change, side) == pytest.approx(fmean(expected))
        assert change.interval is not None
        assert change.interval.over == "runs"


def test_a_phase_that_a_run_lacks_is_the_mean_of_those_that_have_it(
    pairs: Comparison, tmp_path: Path
) -> None:
    """Steps with a prompt of one run of three are called decode; the others keep theirs."""
    for folder in runs("off"):
        # Only the one that is changed is read anew.
        if folder.name == "run-2":
            shutil.copytree(folder, tmp_path / folder.name)
        else:
            (tmp_path / folder.name).symlink_to(folder)
    with closing(sqlite3.connect(tmp_path / "run-2" / "trace.sqlite")) as database:
        for table, column in (("NVTX_EVENTS", "text"), ("StringIds", "value")):
            database.execute(
                f"UPDATE {table} SET {column} = 'execute_context_0(0)_generation_16(16)' "
                f"WHERE {column} GLOB 'execute_context_[1-9]*_generation_[1-9]*'"
            )
        database.commit()
    found = nsysmoe.compare(tmp_path, PAIRS / "on")
    for metric in ("total_time_ns", "critical_moe_ns", "wall_time_ns"):
        change, all_ = (_mixed(one, metric) for one in (found, pairs))
        assert change.baseline_values == (all_.baseline_values[0], all_.baseline_values[2]), metric
        assert change.baseline == pytest.approx(fmean(v or 0 for v in change.baseline_values))
        assert change.interval is None, "two runs have no interval"


def _mixed(found: Comparison, metric: str) -> Change:
    part = next(part for part in found.parts if part.key == "mixed")
    return next(change for change in part.metrics if change.metric == metric)


def test_each_run_has_its_own_values(pairs: Comparison) -> None:
    """As rows of CSV and Parquet, and of the table, against each trace alone."""
    rows = comparison_page(pairs, by="run").records
    assert [(row["arm"], row["run"]) for row in rows] == [
        (arm, run) for arm in ("EPLB OFF", "EPLB ON") for run in (1, 2, 3)
    ]
    for row, folder in zip(rows, (*runs("off"), *runs("on")), strict=True):
        trace = folder / "trace.sqlite"
        assert row["source"] == str(trace)
        durations = kernel_durations(trace)["fused_moe_kernel"]
        assert (row["total_time_ns"], row["max_ns"]) == (sum(durations), max(durations))
        assert row["busiest_rank_ns"] == max(moe_by_device(trace))
        summary = json.loads((folder / "run.json").read_text())["runs"][-2]["summary"]
        assert row["output_tok_per_s_unprofiled"] == summary["output_tok_per_s"]


def test_the_table_and_the_picture_show_each_run(pairs: Comparison) -> None:
    page = comparison_page(pairs, by="run")
    table = page.tables[-1]
    assert [row.group for row in table.rows] == ["EPLB OFF"] * 3 + ["EPLB ON"] * 3
    wall = [column.title for column in table.columns].index("Wall (ms)")
    walls = [row.cells[wall] for row in table.rows]
    change = pairs.metric("wall_time_ns")
    off, on = (
        [value for value in values if value is not None]
        for values in (change.baseline_values, change.candidate_values)
    )
    assert walls == [numbers.milliseconds(value) for value in (*off, *on)]
    picture = next(one for one in page.pictures if one.caption == "Each run").draw()
    points = [trace for trace in picture.data if trace.xaxis == "x6"]
    assert [list(trace.x) for trace in points] == [
        [value * 1e-6 for value in off],
        [value * 1e-6 for value in on],
    ]


def test_one_run_an_arm_needs_no_picture_of_runs() -> None:
    page = comparison_page(nsysmoe.compare(*[PAIRS / arm / "run-1" for arm in ("off", "on")]))
    assert "Each run" not in [picture.caption for picture in page.pictures]


def test_the_run_shown_is_that_of_median_wall_time(pairs: Comparison) -> None:
    told = next(part for part in pairs.findings if part.code == "representative_run")
    assert "median wall time" in told.message
    wall = pairs.metric("wall_time_ns")
    for side, values in (
        (pairs.baseline, wall.baseline_values),
        (pairs.candidate, wall.candidate_values),
    ):
        shown = side.sources.index(told.evidence["shown"][side.label])
        assert values[shown] == median(value for value in values if value is not None)
        assert len(set(values)) == len(values)
