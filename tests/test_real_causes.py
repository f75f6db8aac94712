"""What bounds the real runs, and what their replays say, on the exports that NSYSMOE_TRACES names.

Published figures are those of vLLM's pairs on two H100s, found by folder and file name.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

import nsysmoe
from nsysmoe.analysis.one_trace.bound import bound
from nsysmoe.analysis.one_trace.whatif import Change, WhatIf, whatif
from tests.test_real_structure import (
    BY_NAME,
    DP2,
    EAGER,
    EXPORTS,
    FOLDER,
    GRAPHS,
    name_of,
    named,
    unpacked,
)

__all__ = ["unpacked"]

pytestmark = pytest.mark.skipif(not FOLDER, reason="NSYSMOE_TRACES names no folder of exports")

PAIRS = [f"{pair}/eplb_{arm}" for pair in (EAGER, GRAPHS, DP2) for arm in ("off", "on")]
PARTS = ("blocked_ns", "calling_ns", "outside_ns", "launched_ns", "unknown_ns")


@pytest.fixture(scope="module")
def replays(unpacked: dict[Path, Path]) -> dict[str, WhatIf]:
    """Every removal alone and in order, by name of the export."""
    wanted = [*PAIRS, "toy-moe-2xh100/toy"]
    return {name: whatif(unpacked[BY_NAME[name]]) for name in wanted if name in BY_NAME}


def replayed(replays: dict[str, WhatIf], name: str) -> WhatIf:
    if name not in replays:
        pytest.skip(f"no {name} in NSYSMOE_TRACES")
    return replays[name]


def share(found: WhatIf, removal: str) -> float:
    (row,) = [row for row in found.alone if row["change"] == [removal]]
    return float(row["saved_ns"]) / found.replayed_ns


@pytest.mark.parametrize("export", EXPORTS, ids=name_of)
def test_gaps_add_up_to_idle_time(unpacked: dict[Path, Path], export: Path) -> None:
    with nsysmoe.open(unpacked[export]) as trace:
        if not trace.has_kernels():
            pytest.skip("no kernels")
        gaps, time = trace.frame("idle_gaps"), trace.frame("device_time")
    assert (gaps.select(PARTS).sum_horizontal() == gaps["dur_ns"]).all()
    assert all((gaps[part] >= 0).all() for part in PARTS)
    place = ["global_pid", "device_id", "step"]
    mine = gaps.group_by(place).agg(pl.col("dur_ns").sum())
    theirs = time.group_by(place).agg(pl.col("idle_ns").sum())
    both = theirs.join(mine, on=place, how="left", nulls_equal=True).fill_null(0)
    assert (both["dur_ns"] == both["idle_ns"]).all()


@pytest.mark.parametrize("name", [*PAIRS, "toy-moe-2xh100/toy"])
def test_the_unchanged_replay_repeats_the_trace(replays: dict[str, WhatIf], name: str) -> None:
    found = replayed(replays, name)
    assert abs(found.replay_error) < 1e-9
    for row in found.phases.values():
        assert row["replayed_ns"] == pytest.approx(row["traced_ns"], abs=1)
    assert all(
        -1 <= row["saved_ns"] <= found.replayed_ns
        for row in found.alone
        if row["change"] != ["balanced_moe"]
    )


@pytest.mark.parametrize("arm", ["off", "on"])
def test_eager_runs_gain_nothing_from_balance_and_all_from_the_host(
    replays: dict[str, WhatIf], arm: str
) -> None:
    found = replayed(replays, f"{EAGER}/eplb_{arm}")
    assert abs(share(found, "balanced_moe")) < 0.01
    assert share(found, "no_host_delay") > 0.75
    assert found.order[0]["added"] == "no_host_delay"


def test_an_eager_decode_is_bound_by_the_host_on_both_ranks(unpacked: dict[Path, Path]) -> None:
    rows = bound(named(unpacked, f"{EAGER}/eplb_off"), "rank").rows
    decode = [row for row in rows if row["phase"] == "decode"]
    assert [row["bound"] for row in decode] == ["host", "host"]
    assert [row["shares"]["host"] for row in decode] == pytest.approx([0.874] * 2, abs=0.01)


def test_a_decode_of_graphs_is_bound_by_its_experts(unpacked: dict[Path, Path]) -> None:
    rows = bound(named(unpacked, f"{GRAPHS}/eplb_off"), "phase").rows
    (decode,) = [row for row in rows if row["phase"] == "decode"]
    assert decode["bound"] == "moe"
    assert decode["shares"]["moe"] == pytest.approx(0.79, abs=0.01)


def test_without_host_delay_an_eager_step_takes_what_a_graph_takes(
    unpacked: dict[Path, Path],
) -> None:
    """Predicted from the eager run alone, measured on the run with CUDA graphs."""
    eager = whatif(named(unpacked, f"{EAGER}/eplb_off"), Change(no_host_delay=True))
    graphs = whatif(named(unpacked, f"{GRAPHS}/eplb_off"), Change(no_host_delay=True))
    predicted, measured = eager.phases["decode"], graphs.phases["decode"]
    step = predicted["whatif_ns"] / predicted["steps"]
    assert step == pytest.approx(5.03e6, rel=0.01)
    assert measured["traced_ns"] / measured["steps"] == pytest.approx(5.12e6, rel=0.01)
    assert step == pytest.approx(measured["traced_ns"] / measured["steps"], rel=0.05)
