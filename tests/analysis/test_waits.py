"""The wait ledger: what made the last rank late, closing to the ns."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nsysmoe
from fixtures.builder import TraceBuilder
from nsysmoe.analysis.one_trace.waits import waits
from nsysmoe.errors import MissingDataError
from nsysmoe.metrics.kernel_time.waits import CAUSES
from tests.cli.test_cli import run
from tests.conftest import DP2, GRAPHS

Write = Callable[[TraceBuilder], Path]
REDUCE = "ncclDevKernel_AllReduce_Sum_bf16_RING_LL(x)"
Work = list[tuple[str, int, int, int]]


def two_ranks(first: Work, second: Work, meetings: list[tuple[int, int, int]]) -> TraceBuilder:
    """Build a trace of (name, start, dur, end of its call) a rank, and of meetings.

    A meeting is its two starts and its common end; its calls end long before.
    """
    build = TraceBuilder()
    correlation = 0
    for device, (pid, work) in enumerate(((1000, first), (2000, second))):
        events = [*work, *((REDUCE, m[device], m[2] - m[device], 0) for m in meetings)]
        for name, start, dur, called in events:
            correlation += 1
            build.kernel(name, start, dur, device=device, pid=pid, correlation=correlation)
            build.call(called - 1, 1, pid=pid, correlation=correlation)
    return build


def test_a_wait_is_split_by_what_the_last_rank_did_more(written: Write) -> None:
    """Between two all-reduces, which end at 100:

    rank 0   MoE 100-150                     other 150-160                arrives 160
    rank 1   (launched 130) MoE 130-200      (launched late, 10 of the gap of 15) other 215-230
             arrives 234, 4 after the kernel before, launched in time
    """
    build = two_ranks(
        [("fused_moe_kernel", 100, 50, 0), ("rms_norm_kernel", 150, 10, 0)],
        [("fused_moe_kernel", 130, 70, 130), ("rms_norm_kernel", 215, 15, 210)],
        [(10, 20, 100), (160, 234, 300)],
    )
    path = written(build)
    with nsysmoe.open(path) as trace:
        (row,) = trace.frame("wait_ledger").to_dicts()
    found = {key: row[f"{key}_ns"] for key in CAUSES}
    assert row["wait_ns"] == 234 - 160
    assert found == {
        "moe": 70 - 50, "other_kernels": 15 - 10, "host": 30 + 10, "other_gap": 5 + 4,
        "previous_end": 0, "residual": 0,
    }  # fmt: skip
    assert (row["device_id"], row["late_device_id"]) == (0, 1)
    assert sum(found.values()) == row["wait_ns"]


def test_a_collective_that_ended_later_hands_its_lag_on(written: Write) -> None:
    build = two_ranks([], [], [(0, 0, 100), (105, 112, 200)])
    build.kernels[2]["end"] = 107
    with nsysmoe.open(written(build)) as trace:
        (row,) = trace.frame("wait_ledger").to_dicts()
    assert (row["wait_ns"], row["previous_end_ns"], row["residual_ns"]) == (7, 7, 0)


def test_the_first_meeting_has_nothing_to_count_from(written: Write) -> None:
    with pytest.raises(MissingDataError, match="no waiting to explain"):
        waits(written(two_ranks([], [], [(0, 50, 100)])))


STEP = st.tuples(
    st.sampled_from(["fused_moe_kernel", "rms_norm_kernel"]),
    st.integers(0, 40),
    st.integers(1, 60),
    st.integers(-50, 80),
)


# Few traces, since writing and reading one takes long, of more meetings each.
@settings(max_examples=8)
@given(st.lists(st.tuples(st.lists(STEP, max_size=3), st.lists(STEP, max_size=3)), min_size=2,
                max_size=8))  # fmt: skip
def test_the_ledger_closes_on_one_stream_whatever_ran(
    tmp_path_factory: pytest.TempPathFactory,
    rounds: list[tuple[list[tuple[str, int, int, int]], ...]],
) -> None:
    works: tuple[Work, Work] = ([], [])
    meetings = []
    ends = [0, 0]
    for parts in rounds:
        starts = []
        for rank, steps in enumerate(parts):
            for name, gap, dur, late in steps:
                at = ends[rank] + gap
                works[rank].append((name, at, dur, at + min(late, 0)))
                ends[rank] = at + dur
            starts.append(ends[rank] + 3)
        meetings.append((starts[0], starts[1], max(starts) + 10))
        ends = [max(starts) + 10] * 2
    path = two_ranks(*works, meetings).write(tmp_path_factory.mktemp("w") / "t.sqlite")
    with nsysmoe.open(path) as trace:
        ledger = trace.frame("wait_ledger")
    assert set(ledger["residual_ns"].to_list()) <= {0}
    assert ledger["wait_ns"].sum() == sum(abs(a - b) for a, b, _ in meetings[1:] if a != b)


@pytest.mark.parametrize("path", [*GRAPHS.glob("*.sqlite"), *DP2.glob("*.sqlite")], ids=str)
def test_it_closes_on_the_real_pairs_and_adds_up_by_everything(path: Path) -> None:
    whole = waits(path).whole
    assert sum(whole[cause] for cause in CAUSES) == whole["wait_ns"]
    assert whole["residual"] == 0
    for by in ("phase", "layer", "rank", "collective"):
        rows = waits(path, by).rows
        assert sum(row["wait_ns"] for row in rows) == whole["wait_ns"], by
    phases = waits(path).phases
    for cause in CAUSES:
        assert sum(row[cause] for row in phases.values()) == whole[cause]


def test_the_json_has_the_promised_keys() -> None:
    path = GRAPHS / "eplb_off.sqlite"
    found = json.loads(run("waits", path, "--by", "cause", "--format", "json").stdout)
    assert set(found["causes"]) == set(CAUSES)
    assert sum(found["causes"].values()) == found["wait_ns"]
    assert {"wait_ns", "causes"} <= found["phases"]["decode"].keys()
    rows = json.loads(run("waits", path, "--by", "rank", "--format", "json").stdout)
    assert {row["late_device"] for row in rows} == {0, 1}
