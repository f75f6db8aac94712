"""Advice: gains that are there are found, and those that are not are not promised."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from nsysmoe.analysis.placing.advice_words import Grounds, verdict
from nsysmoe.analysis.placing.advise import advise
from nsysmoe.analysis.routing.routed import write_captured
from nsysmoe.cli import main
from nsysmoe.errors import MissingDataError, PlacementError, RoutingError
from nsysmoe.metrics.routed_load.held_out import saved, step_cube
from nsysmoe.metrics.routed_load.routing_loads import count_choices
from nsysmoe.metrics.statistics.single_runs import between_runs, pair_interval
from tests.conftest import GRAPHS
from tests.routing.counted import logged

ROUTED = GRAPHS / "eplb_off.routed.npz"
TRACE: dict[str, Any] = {"trace": GRAPHS / "eplb_off.sqlite", "run": GRAPHS / "eplb_off.run.json"}


def by_what(found: Any) -> dict[str, dict[str, Any]]:
    return {row["what"]: row for row in found.loads}


def grounds_of(found: Any) -> Grounds:
    """Return what an advice's verdict stands on."""
    return Grounds(
        shape=found.shape,
        loads=by_what(found),
        times={(row["phase"], row["what"]): row for row in found.times},
        bounds=list(found.bound),
        moves=found.moves,
        single_runs=found.single_runs,
        tax=found.tax,
        rearrangements=list(found.rearrangements),
    )


def test_hot_experts_on_one_gpu_are_worth_moving(tmp_path: Path) -> None:
    steps = np.tile([40, 40, 10, 10], (8, 2, 1))
    found = advise(logged(tmp_path / "a.csv", steps), gpus=2)
    rows = by_what(found)
    assert found.is_worth
    assert rows["now"]["wasted_share"] == pytest.approx(1 - 50 / 80)
    assert rows["best"]["wasted_share"] == 0
    assert rows["best"]["saved"] == pytest.approx(30 / 80)
    assert (rows["best"]["low"], rows["best"]["high"]) == pytest.approx((30 / 80, 30 / 80))
    for layer in found.map:
        assert {expert < 2 for expert in layer[:2]} == {True, False}


def test_a_pattern_that_does_not_last_is_not_promised(tmp_path: Path) -> None:
    """What looks imbalanced in every step, each time elsewhere, helps nobody when it is planned."""
    random = np.random.default_rng(0)
    steps = np.array([[random.permutation([9, 9, 9, 9, 0, 0, 0, 0])] for _ in range(60)])
    found = advise(logged(tmp_path / "a.csv", steps), gpus=4)
    assert not found.is_worth
    assert found.sentences[0].startswith("EPLB is not worth")
    assert abs(by_what(found)["best"]["saved"]) < 0.1


def test_chance_is_called_chance(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    route = random.random((400, 2, 16)).argpartition(1, axis=2)[:, :, :2]
    np.savez(tmp_path / "a.npz", **{f"r{n}": route[n * 8 : n * 8 + 8] for n in range(50)})  # type: ignore[arg-type]
    found = advise(tmp_path / "a.npz", gpus=4)
    assert not found.is_worth
    assert "chance" in " ".join(found.sentences)
    assert found.shape["unit"] == "request"
    assert [finding.code for finding in found.findings] == ["no_steps"]


def test_one_expert_a_gpu_has_nowhere_to_go(tmp_path: Path) -> None:
    path = logged(tmp_path / "a.csv", np.tile([90, 10], (4, 1, 1)))
    found = advise(path, gpus=2)
    assert not found.is_worth
    assert "One expert a GPU" in " ".join(found.sentences)
    # With redundant experts there is.
    assert advise(path, gpus=2, redundant=2).is_worth


def test_windows_of_the_only_request_stand_for_steps(tmp_path: Path) -> None:
    # 600 tokens of one request: three windows.
    chosen = np.array([0, 1] * 150 + [2, 3] * 50 + [0, 1] * 100)
    rows = "\n".join(f"{token},0,0,{expert}" for token, expert in enumerate(chosen.tolist()))
    (tmp_path / "a.csv").write_text(f"token,layer,k,expert\n{rows}\n", encoding="utf-8")
    found = advise(tmp_path / "a.csv", gpus=2)
    assert (found.shape["unit"], found.shape["steps"]) == ("window", 3)
    assert found.expert_loads == ((250, 250, 50, 50),)
    by_window = [chosen[first : first + 256] for first in (0, 256, 512)]
    busiest = sum(max((each < 2).sum(), (each >= 2).sum()) for each in by_window)
    assert by_what(found)["now"]["critical"] == busiest
    assert "256 consecutive tokens stand" in found.findings[0].message


def test_what_cannot_be_answered_says_why(tmp_path: Path) -> None:
    path = logged(tmp_path / "a.csv", [[[1, 2]]])
    with pytest.raises(MissingDataError, match="nothing is left to judge on"):
        advise(path, gpus=2)
    with pytest.raises(MissingDataError, match="--gpus"):
        advise(path)
    with pytest.raises(PlacementError, match="do not divide"):
        advise(logged(path, [[[1, 2]]] * 3), gpus=2, redundant=1)
    with pytest.raises(RoutingError, match="2 ranks"):
        advise(ROUTED, **TRACE, gpus=4)


@pytest.fixture(scope="module")
def graphs() -> Any:
    return advise(ROUTED, **TRACE)


def test_a_trace_gives_times(graphs: Any) -> None:
    rows = {(row["phase"], row["what"]): row for row in graphs.times}
    now, best = rows["all", "now"], rows["all", "best"]
    assert rows["all", "measured"]["critical_ns"] == pytest.approx(now["critical_ns"], rel=0.03)
    assert best["saved_ns"] == pytest.approx(now["critical_ns"] - best["critical_ns"])
    assert rows["all", "perfect_balance"]["critical_ns"] <= best["critical_ns"]
    assert graphs.bound
    parts = sum(
        rows[phase, "measured"]["critical_ns"]
        for phase in ("decode", "prefill")
        if (phase, "measured") in rows
    )
    assert parts == pytest.approx(rows["all", "measured"]["critical_ns"])


def test_a_single_pair_of_runs_may_show_the_contrary(graphs: Any) -> None:
    """Two runs cut the same prompts into other steps: a step more reads all weights once more."""
    found = graphs.single_runs
    row = next(row for row in graphs.times if (row["phase"], row["what"]) == ("all", "eplb"))
    assert found["saved_ns"] == row["saved_ns"]
    assert found["low_ns"] < row["saved_ns"] < found["high_ns"]
    assert found["batching_ns"] == found["prompt_steps"] ** 0.5 * found["step_ns"]
    assert "One run with EPLB against one without" in " ".join(graphs.sentences)


def test_spread_between_runs_by_hand() -> None:
    import polars as pl

    launches = pl.DataFrame(
        {
            "phase": ["prefill"] * 2 + ["decode"] * 4,
            "step": [0, 0, 1, 1, 2, 2],
            "ordinal": [0, 0, 1, 1, 2, 2],
            "gemm": "w13",
            "rank": [0, 1] * 3,
            "dur_ns": [50, 60, 10, 14, 10, 16],
            "predicted_ns": [55.0, 55, 12, 12, 12, 12],
            "is_padded": False,
        }
    )
    found = between_runs(launches)
    # One step with prompts; the median decode step waits 15 for its slowest rank.
    assert (found["prompt_steps"], found["step_ns"], found["batching_ns"]) == (1, 15, 15)
    # Prefill: -5 and 5 beside the fit, decode -4 and 6: variances 50 and 50.
    assert found["ranks_ns"] == pytest.approx(10)
    assert found["sd_ns"] == pytest.approx(325**0.5)
    (low, high), runs = pair_interval(5.0, 0.0, 10.0)
    assert (low, high) == pytest.approx((5 - 27.72, 5 + 27.72), abs=0.01)
    assert runs == 31
    assert pair_interval(0.0, 1.0, 1.0)[1] is None


def test_a_rearrangement_elsewhere_tells_its_cost(graphs: Any) -> None:
    assert graphs.rearrangements == ()
    assert "no trace shows what rearranging costs" in " ".join(graphs.sentences)
    with pytest.raises(MissingDataError, match="no rearrangement"):
        advise(ROUTED, **TRACE, rearranged=GRAPHS / "eplb_off.sqlite")
    row = {"stall_ns": 5e6}
    told = verdict(replace(grounds_of(graphs), rearrangements=[row, {"stall_ns": 7e6}]))[1]
    saved = next(row for row in graphs.times if (row["phase"], row["what"]) == ("all", "eplb"))
    steps = 6e6 / (saved["saved_ns"] / graphs.shape["steps"])
    assert "held up steps for 6.0 ms each time, which" in " ".join(told)
    assert f"pay back in {steps:,.0f} steps" in " ".join(told)


def test_moves_are_those_of_gpus_named_as_they_fit_best(tmp_path: Path) -> None:
    """The plan swaps one expert of each GPU, whatever it calls the GPUs."""
    found = advise(logged(tmp_path / "a.csv", np.tile([40, 40, 10, 10], (8, 2, 1))), gpus=2)
    assert found.moves == {"experts": 4, "slots": 8}


def test_when_it_would_not_help_is_listed(graphs: Any) -> None:
    limits = {limit["code"]: limit["applies"] for limit in graphs.limits}
    assert limits == {
        "one_expert_a_gpu": False,
        "within_chance": False,
        # Of four experts a GPU a batch of 32 tokens leaves none idle.
        "active_experts": True,
        "host_bound": False,
    }


def test_a_gain_that_nobody_waits_for_is_none_yet(graphs: Any) -> None:
    rows = [{"bound": "host", "window_ns": 96}, {"bound": "moe", "window_ns": 4}]
    is_worth, sentences, limits = verdict(replace(grounds_of(graphs), bounds=rows))
    assert graphs.is_worth
    assert not is_worth
    assert sentences[0].startswith("EPLB is not worth turning on yet")
    assert "96% of the time is bound by the host" in sentences[-1]
    assert limits[-1]["applies"]


def test_a_plan_by_cost_is_judged_beside_those_by_loads(graphs: Any) -> None:
    saved = {row["what"]: row["saved"] for row in graphs.times if row["phase"] == "decode"}
    assert saved["active"] > saved["eplb"] - 0.005
    assert {"now", "eplb", "best", "active", "perfect_balance"} < {*saved, "measured"}


def test_experts_that_are_active_together_are_better_parted(tmp_path: Path) -> None:
    together = [[40, 40, 0, 0], [0, 0, 40, 40]]
    order = np.random.default_rng(0).integers(0, 2, 40)
    found = advise(logged(tmp_path / "a.csv", [[together[kind]] for kind in order]), gpus=2)
    assert by_what(found)["active"]["saved"] == 0.5


def test_redundant_experts_cost_decode(graphs: Any) -> None:
    """Measured on the whole pair: a fifth more critical time in decode (docs/routing-cost.md)."""
    replicated = advise(ROUTED, **TRACE, redundant=2)
    rows = {(row["phase"], row["what"]): row for row in replicated.times}
    assert -0.3 < rows["decode", "best"]["saved"] < -0.1
    assert rows["all", "eplb"]["saved"] < rows["all", "eplb_plain"]["saved"]
    assert replicated.tax is not None
    changes = {row["phase"]: row["change_ns"] for row in replicated.tax["phases"]}
    assert changes["decode"] > 10_000
    assert "redundant experts change" in " ".join(replicated.sentences)
    active = by_what(replicated)["best"]["active"], by_what(graphs)["best"]["active"]
    assert active[0] > active[1]


def test_a_fifth_expert_that_no_launch_had_is_extrapolated(graphs: Any) -> None:
    """A GPU of four experts: on H100s five took 25.2 % more where the fit said 20.8 %."""
    replicated = advise(ROUTED, **TRACE, redundant=2)
    told = next(each for each in replicated.findings if each.code == "extrapolated")
    assert (told.evidence["seen"], told.evidence["planned"]) == (4, 5)
    assert told.evidence["by_weights"] == pytest.approx(5 / 4, abs=0.01)
    assert 0.9 < told.evidence["share"] <= 1
    assert "extrapolated" not in {each.code for each in graphs.findings}


def test_the_command(tmp_path: Path) -> None:
    path = logged(tmp_path / "a.csv", np.tile([40, 40, 10, 10], (8, 2, 1)))

    def run(*arguments: str) -> Any:
        return CliRunner().invoke(main, ["advise", "--routing", str(path), *arguments])

    found = json.loads(run("--gpus", "2", "--format", "json").stdout)
    assert found["worth"] is True
    assert len(found["physical_to_logical_map"]) == 2
    assert run("--gpus", "2").output.startswith("EPLB is worth turning on")
    page = tmp_path / "a.html"
    assert run("--gpus", "2", "-o", str(page)).exit_code == 0
    assert "Work of the busiest GPUs" in page.read_text(encoding="utf-8")
    assert "--run goes with --trace" in run("--gpus", "2", "--run", "x.json").output


def test_the_record_beside_the_trace_is_found(graphs: Any, tmp_path: Path) -> None:
    trace = GRAPHS / "eplb_off.sqlite"
    found = advise(ROUTED, trace=trace)
    assert found.loads == graphs.loads
    assert [row["critical_ns"] for row in found.times] == pytest.approx(
        [row["critical_ns"] for row in graphs.times]
    )
    # Without one the trace still tells the GPUs, and what bounds the time.
    alone = tmp_path / "alone.sqlite"
    shutil.copy(trace, alone)
    found = advise(ROUTED, trace=alone)
    assert (found.shape["gpus"], found.shape["unit"], found.times) == (2, "request", ())
    assert [finding.code for finding in found.findings] == ["no_record", "no_steps"]
    limits = {limit["code"]: limit["applies"] for limit in found.limits}
    assert (limits["active_experts"], limits["host_bound"]) == (None, False)


@pytest.fixture
def captured(tmp_path: Path) -> Path:
    """Return the folder of a run, as a capture leaves it."""
    names = {"trace.sqlite": "sqlite", "routing.npz": "routed.npz", "run.json": "run.json"}
    folder = tmp_path / "run-1"
    folder.mkdir()
    for name, end in names.items():
        shutil.copy(GRAPHS / f"eplb_off.{end}", folder / name)
    assert write_captured(folder, "off/run-1")
    return folder


def test_the_routing_of_a_captured_run_gives_times(graphs: Any, captured: Path) -> None:
    log, trace = captured / "routing.parquet", captured / "trace.sqlite"
    found = advise(log, trace=trace)
    assert found.findings[0].code == "arrays_read"
    assert [row["critical_ns"] for row in found.times] == pytest.approx(
        [row["critical_ns"] for row in graphs.times]
    )
    # The record may lie elsewhere.
    record = shutil.move(captured / "run.json", captured.parent / "elsewhere.json")
    assert advise(log, trace=trace, run=record).times == found.times
    # A log of its own is not taken for that of the run, but told of it.
    shutil.move(record, captured / "run.json")
    other = captured.parent / "other.parquet"
    shutil.copy(log, other)
    alone = advise(other, trace=trace)
    assert (alone.times, alone.findings[0].code) == ((), "no_record")
    assert f"--routing {captured / 'routing.npz'} --trace {trace}" in alone.findings[0].message


def test_a_captured_run_that_cannot_be_replayed_has_loads(captured: Path) -> None:
    record = json.loads((captured / "run.json").read_text(encoding="utf-8"))
    del record["runs"][-1]["requests"][-1]
    (captured / "run.json").write_text(json.dumps(record), encoding="utf-8")
    found = advise(captured / "routing.parquet", trace=captured / "trace.sqlite")
    assert found.times == ()
    assert found.findings[0].code == "no_times"
    assert "requests" in found.findings[0].message


@pytest.mark.parametrize(
    ("rows", "start", "is_worth"),
    [
        # Rows of an expert in each step: 25, 2.5, and those of two steps in four.
        ([40] * 4, "EPLB is worth turning on for this workload by loads, which are not time", True),
        ([4] * 4, "EPLB may be worth turning on for this workload by loads", False),
        ([4, 40] * 2, "EPLB may be worth turning on for this workload by loads", False),
        ([4, 40, 40, 40], "EPLB is worth turning on for this workload by loads", True),
    ],
)
def test_loads_are_not_taken_for_time(
    rows: list[int], start: str, is_worth: bool, tmp_path: Path
) -> None:
    steps = [[[each, each, each // 4, each // 4]] for each in rows]
    found = advise(logged(tmp_path / "a.csv", steps), gpus=2)
    assert found.sentences[0].startswith(start)
    assert found.is_worth is is_worth
    assert found.shape["small_steps"] == rows.count(4)
    said = f"In {rows.count(4)} of 4 steps an expert has fewer than 16 rows"
    assert (said in found.sentences[1]) is not is_worth


def test_requests_that_stand_for_steps_are_no_batches(tmp_path: Path) -> None:
    route = np.array([[[0]], [[0]], [[1]], [[2]]] * 40)
    np.savez(tmp_path / "a.npz", r0=route, r1=route, r2=route)
    found = advise(tmp_path / "a.npz", gpus=2)
    assert found.sentences[0].startswith("EPLB may be worth turning on")
    assert "A request is no batch that ran" in found.sentences[1]
    assert not found.is_worth


def test_what_nobody_knows_is_no_zero(tmp_path: Path) -> None:
    found = advise(logged(tmp_path / "a.csv", np.tile([40, 40, 10, 10], (8, 2, 1))), gpus=2)
    (host,) = (limit for limit in found.limits if limit["code"] == "host_bound")
    assert host["applies"] is None
    assert "%" not in host["sentence"]


def test_what_is_saved_by_hand() -> None:
    before, after = np.array([4.0, 4.0]), np.array([2.0, 3.0])
    share, interval = saved(before, after)
    assert share == 3 / 8
    assert interval == (0.25, 0.5)
    assert saved(before[:1], after[:1]) == (0.5, None)
    # Each phase has one step, so every resample is the run.
    strata = np.array(["decode", "prefill"], dtype=object)
    assert saved(before, after, strata)[1] == (3 / 8, 3 / 8)


def test_steps_beyond_memory_are_thinned_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    import polars as pl

    frame = pl.DataFrame(
        {"run": "a", "step": [0, 1, 2, 3, 4], "layer": 0, "expert": [0, 1, 0, 1, 0], "tokens": 7}
    )
    counts = count_choices([frame])
    assert step_cube(counts, 2).tolist() == [[[7, 0]], [[0, 7]], [[7, 0]], [[0, 7]], [[7, 0]]]
    monkeypatch.setattr("nsysmoe.metrics.routed_load.held_out.LARGEST", 5)
    assert step_cube(counts, 2).tolist() == [[[7, 0]], [[7, 0]], [[7, 0]]]
