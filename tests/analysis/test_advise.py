"""Advice: gains that are there are found, and those that are not are not promised."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from nsysmoe.analysis.advise import advise
from nsysmoe.cli import main
from nsysmoe.errors import MissingDataError, PlacementError, RoutingError
from nsysmoe.metrics.held_out import saved, step_cube
from nsysmoe.metrics.routing_loads import count_choices
from tests.conftest import GRAPHS

ROUTED = GRAPHS / "eplb_off.routed.npz"
TRACE: dict[str, Any] = {"trace": GRAPHS / "eplb_off.sqlite", "run": GRAPHS / "eplb_off.run.json"}


def logged(path: Path, loads: Any) -> Path:
    """Write counts [steps, layers, experts] as a table."""
    rows = [
        f"{step},{layer},{expert},{count}"
        for step, layers in enumerate(loads)
        for layer, experts in enumerate(layers)
        for expert, count in enumerate(experts)
    ]
    path.write_text("step,layer,expert,tokens\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return path


def by_what(found: Any) -> dict[str, dict[str, Any]]:
    return {row["what"]: row for row in found.loads}


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
    path = logged(tmp_path / "a.csv", np.tile([9, 1], (4, 1, 1)))
    found = advise(path, gpus=2)
    assert not found.is_worth
    assert "One expert a GPU" in " ".join(found.sentences)
    # With redundant experts there is.
    assert advise(path, gpus=2, redundant=2).is_worth


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


def test_redundant_experts_cost_decode(graphs: Any) -> None:
    """Measured on the whole pair: a fifth more critical time in decode (docs/routing-cost.md)."""
    replicated = advise(ROUTED, **TRACE, redundant=2)
    rows = {(row["phase"], row["what"]): row for row in replicated.times}
    assert -0.3 < rows["decode", "best"]["saved"] < -0.1
    active = by_what(replicated)["best"]["active"], by_what(graphs)["best"]["active"]
    assert active[0] > active[1]


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
    assert "go together" in run("--trace", "x.sqlite").output


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
    monkeypatch.setattr("nsysmoe.metrics.held_out.LARGEST", 5)
    assert step_cube(counts, 2).tolist() == [[[7, 0]], [[7, 0]], [[7, 0]]]
