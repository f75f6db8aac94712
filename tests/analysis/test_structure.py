"""Waiting, balance and phases, on a trace that can be checked by eye and on the real pair."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nsysmoe
from fixtures.builder import TraceBuilder
from nsysmoe.analysis.one_trace.structure import collectives, imbalance, phases
from nsysmoe.errors import MissingDataError
from tests.cli.test_cli import run
from tests.conftest import GRAPHS

if TYPE_CHECKING:
    from collections.abc import Callable

    Write = Callable[[TraceBuilder], Path]

REDUCE = "ncclDevKernel_AllReduce_Sum_bf16_RING_LL(x)"
# One trace is asked by most tests, and changed by none.
pytestmark = pytest.mark.usefixtures("settled")


def two_ranks(shift: int = 0, *, swap: bool = False) -> TraceBuilder:
    """Two steps of one layer on two ranks.

    prefill:  rank 0  w13 10  w2 20   arrives 40   | rank 1  w13 30  w2 20   arrives 70
    decode:   rank 0  w13  4  w2  4   arrives 120  | rank 1  w13  4  w2  6   arrives 110
    """
    build = TraceBuilder()
    ranks = ((0, 1000), (1, 2000))
    work = {
        0: ((0, 10, 10, 20, 40, 80), (100, 4, 105, 4, 120, 125)),
        1: ((0, 30, 35, 20, 70, 81), (100, 4, 105, 6, 110, 125)),
    }
    for device, pid in ranks:
        for step, (w13, d13, w2, d2, start, end) in enumerate(work[1 - device if swap else device]):
            call = shift + step * 100
            context = "execute_context_2(64)_generation_0(0)"
            label = context if step == 0 else "execute_context_0(0)_generation_2(2)"
            build.range(label, call - 5, 50, pid=pid)
            for number, (name, at, dur) in enumerate(
                (
                    ("fused_moe_kernel", w13, d13),
                    ("fused_moe_kernel", w2, d2),
                    (REDUCE, start, end - start),
                )
            ):
                correlation = 10 * step + number
                build.kernel(name, shift + at, dur, device=device, pid=pid, correlation=correlation)
                build.call(call + number, 1, pid=pid, correlation=correlation)
    return build


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_ranks().write(tmp_path_factory.mktemp("two") / "ranks.sqlite")


def test_cells_to_check_by_eye(ranks: Path) -> None:
    (row,) = imbalance(ranks).rows
    assert (row["cells"], row["critical_ns"], row["mean_ns"]) == (4, 30 + 20 + 4 + 6, 49.0)
    assert row["excess_ns"] == 11.0
    assert row["max"] == 1.5
    assert row["p50"] == pytest.approx((1.0 + 1.2) / 2)
    assert row["attribution"] == {
        "method": "nvtx", "confidence": "high", "time_ratio": 1.0, "layers": "order"
    }  # fmt: skip


def test_cells_by_phase_layer_and_product(ranks: Path) -> None:
    by_phase = {row["phase"]: row for row in imbalance(ranks, "phase").rows}
    assert (by_phase["prefill"]["critical_ns"], by_phase["decode"]["critical_ns"]) == (50, 10)
    by_gemm = {row["gemm"]: row for row in imbalance(ranks, "gemm").rows}
    assert (by_gemm["w13"]["critical_ns"], by_gemm["w2"]["critical_ns"]) == (34, 26)
    assert [row["layer"] for row in imbalance(ranks, "layer").rows] == [0]
    assert [row["step"] for row in imbalance(ranks, "step").rows] == [0, 1]


def test_waits_to_check_by_eye(ranks: Path) -> None:
    rows = {row["device"]: row for row in collectives(ranks).rows}
    assert rows[0]["collective"] == "ncclDevKernel_AllReduce_Sum_bf16_RING_LL"
    for device, wait, last in ((0, 30, 1), (1, 10, 1)):
        assert rows[device]["matched"] == 2
        assert rows[device]["unmatched"] == 0
        assert rows[device]["wait_ns"] == wait
        assert rows[device]["transfer_ns"] == (80 - 70) + (125 - 120)
        assert rows[device]["arrived_last"] == last
    assert [rows[d]["total_ns"] for d in (0, 1)] == [45, 26]


def test_phases_to_check_by_eye(ranks: Path) -> None:
    rows = {row["phase"]: row for row in phases(ranks).rows}
    assert rows["prefill"] == {
        "phase": "prefill", "steps": 1, "launches": 4, "moe_total_ns": 80, "critical_ns": 50,
        "tokens": 64,
    }  # fmt: skip
    assert rows["decode"]["tokens"] == 2


@pytest.mark.parametrize("shift", [-(10**9), 1_795_302_237_418_429_892])
def test_a_common_shift_of_time_changes_nothing(ranks: Path, written: Write, shift: int) -> None:
    there = written(two_ranks(shift))
    for question in (collectives, imbalance, phases):
        assert question(ranks).rows == question(there).rows


def ending_in_dummies(moe: int) -> TraceBuilder:
    """Two ranks: four decode steps of two layers, then three passes without a request.

    In those rank 1 takes ``moe`` for each product; all else takes 10. Passes are 100 apart.
    """
    build = TraceBuilder()
    for device, pid in ((0, 1000), (1, 2000)):
        for number in range(7):
            if number < 4:
                build.range("execute_context_0(0)_generation_2(2)", 100 * number, 50, pid=pid)
            for place, name in enumerate(("embedding", *["fused_moe_kernel"] * 4)):
                at, correlation = 100 * number + 20 * place, 10 * number + place
                is_slow = device == 1 and number >= 4 and place > 0
                build.kernel(name, at, moe if is_slow else 10, device=device, pid=pid,
                             correlation=correlation)  # fmt: skip
                build.call(100 * number + place, 1, pid=pid, correlation=correlation)
    return build


def test_passes_without_a_request_are_told_apart(written: Write) -> None:
    """Three passes from the first MoE kernel at 420 to the end at 680 + moe; four products each."""
    one, other = written(ending_in_dummies(20)), written(ending_in_dummies(15))
    (found,) = (f for f in nsysmoe.compare(one, other).findings if f.code == "dummy_passes")
    assert found.severity == "warning"
    for arm, moe in (("baseline", 20), ("candidate", 15)):
        # Of two GPUs, the second ends later by what its last kernel takes longer.
        wall = ((680 + moe - 420) + (690 - 420)) / 2
        whole = ((680 + moe) + 690) / 2
        assert found.evidence[arm] == {
            "passes": 3, "wall_ns": wall, "wall_ratio": pytest.approx(wall / whole),
            "critical_ns": 12 * moe,
        }  # fmt: skip
    rows = {row["phase"]: row for row in phases(one).rows}
    assert {phase: row["steps"] for phase, row in rows.items()} == {"decode": 4, "dummy": 3}
    assert (rows["dummy"]["critical_ns"], rows["dummy"]["tokens"]) == (240, 0)


def beside_a_prompt(at: int | None, collective: str = REDUCE) -> TraceBuilder:
    """Two ranks, six steps of two layers, 100 apart; rank 1 reads a prompt in step ``at``.

    The last kernel of each step is the collective, in which they meet.
    """
    build = TraceBuilder()
    for device, pid in ((0, 1000), (1, 2000)):
        for number in range(6):
            reads = device == 1 and number == at
            name = f"execute_context_{'1(64)' if reads else '0(0)'}_generation_2(2)"
            build.range(name, 100 * number, 50, pid=pid)
            names = ("embedding", *["fused_moe_kernel"] * 4, collective)
            for place, kernel in enumerate(names):
                correlation = 10 * number + place
                build.kernel(kernel, 100 * number + 16 * place, 10, device=device, pid=pid,
                             correlation=correlation)  # fmt: skip
                build.call(100 * number + place, 1, pid=pid, correlation=correlation)
    return build


def test_ranks_in_different_phases_are_told(written: Write) -> None:
    beside, alike = written(beside_a_prompt(2)), written(beside_a_prompt(None))
    compared = nsysmoe.compare(beside, alike)
    (found,) = (f for f in compared.findings if f.code == "phases_apart")
    # Step 2 of rank 0 takes 100; of two GPUs.
    assert found.evidence["baseline"] == {"steps": 1, "wall_ns": 50.0, "phases": {"decode": 50.0}}
    assert found.evidence["candidate"] == {"steps": 0, "wall_ns": 0.0, "phases": {}}
    parts = {part.key: part for part in compared.parts if part.kind == "phase"}
    # Step 2 counts as mixed on both ranks: wall, launches and cells; the other five as decode.
    for name, wall, moe in (("mixed", 100, 4 * 10), ("decode", 490, 20 * 10)):
        values = {change.metric: change.baseline for change in parts[name].metrics}
        assert (values["wall_time_ns"], values["critical_moe_ns"]) == (wall, moe)
        assert values["busiest_rank_ns"] == moe
        assert values["total_time_ns"] == 2 * moe


@pytest.mark.parametrize(("at", "collective"), [(None, REDUCE), (2, "something_else")])
def test_ranks_that_are_alike_or_meet_nowhere_are_not_apart(
    written: Write, at: int | None, collective: str
) -> None:
    path = written(beside_a_prompt(at, collective))
    compared = nsysmoe.compare(path, written(beside_a_prompt(None, collective)))
    assert "phases_apart" not in {finding.code for finding in compared.findings}


def test_renaming_ranks_changes_only_their_names(ranks: Path, written: Write) -> None:
    there = written(two_ranks(swap=True))
    assert imbalance(ranks).rows == imbalance(there).rows
    waits = [sorted(row["wait_ns"] for row in collectives(path).rows) for path in (ranks, there)]
    assert waits[0] == waits[1]


def test_a_replayed_graph_belongs_to_the_step_that_launched_it(written: Write) -> None:
    build = TraceBuilder()
    for device, pid in ((0, 1000), (1, 2000)):
        build.range("execute_context_0(0)_generation_2(2)", 0, 50, pid=pid)
        build.call(10, 2, pid=pid, correlation=7)
        for node in range(4):
            build.kernel("fused_moe_kernel", 100 + node, 1, device=device, pid=pid,
                         correlation=7, graph_node=node)  # fmt: skip
    rows = phases(written(build)).rows
    assert [(row["phase"], row["launches"]) for row in rows] == [("decode", 8)]


def test_unequal_launches_are_refused_not_guessed(written: Write) -> None:
    build = two_ranks().kernel("fused_moe_kernel", 300, 5).kernel(REDUCE, 400, 5)
    path = written(build)
    with pytest.raises(MissingDataError, match=r"different numbers of MoE kernels \(5, 4\)"):
        imbalance(path)
    found = collectives(path)
    assert {row["unmatched"] for row in found.rows} == {3, 2}
    assert {row["wait_ns"] for row in found.rows} == {0}
    assert [finding.code for finding in found.findings] == ["unmatched_collectives"]


def test_kernels_that_never_meet_are_no_collective(written: Write) -> None:
    build = TraceBuilder().kernel(REDUCE, 0, 5).kernel(REDUCE, 100, 5, device=1, pid=2000)
    assert [row["matched"] for row in collectives(written(build)).rows] == [0, 0]


def test_one_rank_and_none(written: Write) -> None:
    with pytest.raises(MissingDataError, match="one rank alone"):
        imbalance(written(TraceBuilder().kernel("fused_moe_kernel", 0, 5)))
    with pytest.raises(MissingDataError, match="no MoE kernel ran"):
        imbalance(written(TraceBuilder().kernel("k", 0, 5)))


def test_without_ranges_nothing_is_attributed(written: Write) -> None:
    build = two_ranks()
    build.ranges.clear()
    path = written(build)
    (row,) = imbalance(path).rows
    assert row["critical_ns"] == 60
    assert row["attribution"] == {
        "method": None, "confidence": None, "time_ratio": 0.0, "layers": None
    }  # fmt: skip
    found = phases(path)
    assert [r["phase"] for r in found.rows] == ["unattributed"]
    assert "no_step_ranges" in [finding.code for finding in found.findings]


def test_ranges_by_registered_string(written: Write) -> None:
    path = written(two_ranks())
    with closing(sqlite3.connect(path)) as database:
        database.execute("INSERT INTO StringIds SELECT 900 + rowid, text FROM NVTX_EVENTS")
        database.execute("UPDATE NVTX_EVENTS SET textId = 900 + rowid, text = NULL")
        database.commit()
    assert {row["phase"] for row in phases(path).rows} == {"prefill", "decode"}


TIMES = st.lists(
    st.tuples(st.integers(1, 1000), st.integers(1, 1000), st.integers(0, 500), st.integers(0, 500)),
    min_size=1,
    max_size=24,
)


# Few traces, since writing and reading one takes long, of more cells each.
@settings(max_examples=8)
@given(TIMES)
def test_invariants(tmp_path_factory: pytest.TempPathFactory, times: list[tuple[int, ...]]) -> None:
    build = TraceBuilder()
    for number, (first, second, early, late) in enumerate(times):
        base = number * 10_000
        for device, (dur, arrival) in enumerate(((first, early), (second, late))):
            pid = 1000 * (device + 1)
            build.kernel("fused_moe_kernel", base, dur, device=device, pid=pid)
            start = base + 2000 + arrival
            build.kernel(REDUCE, start, base + 4000 - start, device=device, pid=pid)
    path = build.write(tmp_path_factory.mktemp("t") / "t.sqlite")
    (row,) = imbalance(path).rows
    assert row["critical_ns"] == sum(max(first, second) for first, second, *_ in times)
    assert row["mean_ns"] + row["excess_ns"] == pytest.approx(row["critical_ns"])
    assert 1 <= row["p50"] <= row["p95"] <= row["max"] <= 2
    with nsysmoe.open(path) as trace:
        events = trace.frame("matched_collectives")
    assert events["is_matched"].all()
    assert (events["wait_ns"] >= 0).all()
    assert (events["wait_ns"] + events["transfer_ns"] <= events["dur_ns"]).all()
    waits = collectives(path).rows
    assert sum(row["wait_ns"] for row in waits) == sum(
        abs(early - late) for *_, early, late in times
    )


def test_the_real_pair(off: Path, on: Path) -> None:
    """The trap of totals: +1.0 % in total, and yet less to wait for."""
    before, after = (imbalance(path).rows[0] for path in (off, on))
    assert before["cells"] == after["cells"] == 192
    assert after["critical_ns"] < before["critical_ns"]
    assert after["excess_ns"] < 0.5 * before["excess_ns"]
    for path in (off, on):
        assert all(row["unmatched"] == 0 for row in collectives(path).rows)
        assert [row["steps"] for row in phases(path).rows if row["phase"] == "prefill"] == [1]


def test_kernels_without_length_have_phases_all_the_same(tmp_path: Path) -> None:
    """Ranges tell their phase, and no time is there to take a share of."""
    copy = tmp_path / "still.sqlite"
    shutil.copy(GRAPHS / "eplb_on.sqlite", copy)
    with closing(sqlite3.connect(copy)) as connection, connection:
        connection.execute("update CUPTI_ACTIVITY_KIND_KERNEL set end = start")
    assert "MoE kernels took no time" in run("phases", copy).stdout
