"""Three captured pairs: what repeated runs say, against a plain reading of their files."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from statistics import fmean, median
from typing import TYPE_CHECKING

import pytest

import nsysmoe
from tests.conftest import PAIRS
from tests.oracle import kernel_durations

if TYPE_CHECKING:
    from pathlib import Path

    from nsysmoe import Comparison


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
def test_what_users_saw_is_the_median_over_runs(pairs: Comparison, arm: str, side: str) -> None:
    records = [json.loads((run / "run.json").read_text(encoding="utf-8")) for run in runs(arm)]
    for suffix, position in (("", -1), ("_unprofiled", -2)):
        requests = [record["runs"][position]["requests"] for record in records]
        expected = median(median(one["ttft_s"] for one in round_) for round_ in requests)
        row = next(row for row in pairs.latency if row["metric"] == "ttft_p50_s")
        assert row[side + suffix] == pytest.approx(expected, rel=1e-9)
