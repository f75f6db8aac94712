"""Routing to time on the real pairs in the folder that NSYSMOE_TRACES names."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from nsysmoe.analysis.one_trace.roofline import roofline
from nsysmoe.analysis.placing.advise import advise
from nsysmoe.analysis.routing.routed import Inputs
from nsysmoe.analysis.routing.routing_cost import Explanation, explain
from nsysmoe.routing import read_model
from tests.conftest import GRAPHS

FOLDER = os.environ.get("NSYSMOE_TRACES")
pytestmark = pytest.mark.skipif(not FOLDER, reason="NSYSMOE_TRACES names no folder of exports")
EAGER, GRAPH = "vllm-mixtral-2xh100", "vllm-mixtral-2xh100-graphs"


def arm(folder: Path, pair: str, name: str) -> Inputs:
    """Return an arm, its trace unpacked."""
    there = Path(FOLDER or "") / pair
    packed = there / f"{name}.sqlite.gz"
    if not packed.exists():
        pytest.skip(f"no {pair}/{name} in NSYSMOE_TRACES")
    trace = folder / f"{name}.sqlite"
    trace.write_bytes(gzip.decompress(packed.read_bytes()))
    return Inputs(trace, there / f"{name}.routed.npz", there / f"{name}.run.json")


@pytest.fixture(scope="module", params=[EAGER, GRAPH])
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Explanation]:
    folder = tmp_path_factory.mktemp("pair")
    off, on = (arm(folder, request.param, name) for name in ("eplb_off", "eplb_on"))
    return request.param, explain(off, on)


def test_every_label_of_both_arms_fits_the_order_of_arrival(pair: tuple[str, Explanation]) -> None:
    # ``explain`` refuses any that does not; and all of the run was there.
    assert "partial_run" not in {finding.code for finding in pair[1].findings}


def test_what_explains_decode_and_prefill(pair: tuple[str, Explanation]) -> None:
    _, found = pair
    costs = {(row["phase"], row["gemm"], row["block_m"]): row for row in found.costs}
    decode = costs["decode", "w13", 16]
    assert decode["r2"] > 0.99
    assert decode["r2_held_out"] > 0.99
    assert decode["r2_tokens"] < 0.18
    prefill = costs["prefill", "w13", 128]
    assert prefill["r2"] > 0.99
    assert prefill["r2_tokens"] > 0.99
    assert costs["prefill", "w2", 128]["r2"] > 0.97


def test_a_fit_on_off_predicts_on(pair: tuple[str, Explanation]) -> None:
    name, found = pair
    scores = {(row["phase"], row["gemm"]): row for row in found.scores}
    sums = {(row["phase"], row["what"]): row for row in found.sums}
    assert scores["decode", "w13"]["error_ratio"] < 0.01
    assert abs(sums["all", "predicted"]["critical_error"]) < 0.02
    if name == GRAPH:
        assert sums["all", "measured"]["critical_ns"] == pytest.approx(247.8e6, abs=0.1e6)
        assert sums["all", "baseline"]["critical_ns"] == pytest.approx(259.5e6, abs=0.1e6)
        assert scores["decode", "w13"]["r2"] > 0.99
        assert scores["decode", "w2"]["r2"] > 0.85
        assert scores["prefill", "w13"]["r2"] > 0.99
        assert scores["prefill", "w2"]["r2"] > 0.97
        assert abs(sums["all", "predicted"]["excess_error"]) < 0.15
        for baseline in ("no_change", "perfect_balance", "baseline"):
            assert abs(sums["all", baseline]["critical_error"]) > 0.03
    else:
        # 256 tokens a step ran in ON alone, in blocks of 64 rows: no fit on OFF knows them.
        assert found.cells == {"cells": 800, "predicted": 768}


def test_padding_wakes_experts_that_nobody_wrote_down(pair: tuple[str, Explanation]) -> None:
    name, found = pair
    padded = [finding for finding in found.findings if finding.code == "padded_batches"]
    assert [finding.evidence["steps"] for finding in padded] == ([3, 3] if name == GRAPH else [])


@pytest.mark.parametrize("name", [EAGER, GRAPH])
def test_decode_is_bound_by_bandwidth_and_prefill_by_computation(name: str, tmp_path: Path) -> None:
    shape = read_model(GRAPHS / "config.json")
    assert shape is not None
    found = roofline(arm(tmp_path, name, "eplb_off"), shape)
    phases = {row["phase"]: row for row in found.phases}
    assert phases["decode"]["bandwidth_bound_ratio"] == 1
    assert 0.84 < phases["decode"]["limit_ratio"] < 0.88
    assert phases["prefill"]["bandwidth_bound_ratio"] < 0.3
    assert 0.45 < phases["prefill"]["limit_ratio"] < 0.55


@pytest.mark.parametrize(("name", "saved", "measured"), [(EAGER, 5.7, -1.1), (GRAPH, 13.0, 11.7)])
def test_advice_on_off_holds_what_on_measured(
    name: str, saved: float, measured: float, tmp_path: Path
) -> None:
    """The eager pair cut its prompts into other steps: predicted to gain, it measured a loss."""
    off, on = (arm(tmp_path, name, each) for each in ("eplb_off", "eplb_on"))
    found = advise(off.routed, trace=off.trace, run=off.run, rearranged=None)
    single = found.single_runs
    assert single is not None
    assert single["saved_ns"] / 1e6 == pytest.approx(saved, abs=0.1)
    before, after = (
        next(
            row for row in explain(each).sums if (row["phase"], row["what"]) == ("all", "measured")
        )
        for each in (off, on)
    )
    if name == EAGER:
        # All cells of both; steps that no map is known for are left out under graphs.
        change = (before["critical_ns"] - after["critical_ns"]) / 1e6
        assert change == pytest.approx(measured, abs=0.1)
    assert single["low_ns"] < measured * 1e6 < single["high_ns"]
    # Nobody waits for experts where the host launches them one by one.
    assert found.is_worth is (name == GRAPH)


def test_rearranging_is_weighed_where_a_trace_shows_it(tmp_path: Path) -> None:
    off, on = (arm(tmp_path, GRAPH, each) for each in ("eplb_off", "eplb_on"))
    found = advise(off.routed, trace=off.trace, run=off.run, rearranged=on.trace)
    assert [round(row["stall_ns"] / 1e6, 1) for row in found.rearrangements] == [17.9]
    assert "pay back in 70 steps" in " ".join(found.sentences)
