"""Plans from a routing log: judged on what they have not seen, gains where there are any."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from nsysmoe.analysis.placing.placement import Memory
from nsysmoe.analysis.placing.routed_placement import evaluate_routed, plan_routed
from nsysmoe.cli import main
from nsysmoe.errors import InputError, MissingDataError, PlacementError
from nsysmoe.placement.cluster import Cluster
from tests.routing.counted import logged

CONFIG = '{"hidden_size": 100, "moe_intermediate_size": 50, "torch_dtype": "bfloat16"}'


def requests(path: Path, *, kinds: int = 2, phases: bool = False) -> Path:
    """Write a log whose requests are of kinds that choose experts of their own, in two layers."""
    random = np.random.default_rng(0)
    lines = []
    for request in range(24):
        kind = random.integers(kinds)
        for token in range(12):
            phase = "prefill" if token < 4 else "decode"
            for layer in range(2):
                # Experts of a kind: those with its remainder.
                chosen = random.permutation(8 // kinds)[:2] * kinds + kind
                lines += [
                    f"{request},{phase if phases else ''},{token},{layer},{token},{k},{expert}"
                    for k, expert in enumerate(chosen)
                ]
    path.write_text("request,phase,step,layer,token,k,expert\n" + "\n".join(lines) + "\n")
    return path


def by_key(found: Any) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["what"], row["requests"]): row for row in found.traffic}


def test_kinds_of_requests_are_kept_on_a_node(tmp_path: Path) -> None:
    found = plan_routed(
        requests(tmp_path / "a.csv"), Cluster(4, 8, nodes=2), "locality", copy_bytes=200
    )
    rows = by_key(found)
    # Each kind has experts on both nodes, dealt requests on both as well.
    assert 0.5 < rows["contiguous", "dealt"]["token_copies"] < 1.1
    local = rows["locality", "grouped"]
    # As many requests run on each node, so that not all can be where their experts are.
    assert local["token_copies"] < 0.5 * rows["contiguous", "dealt"]["token_copies"]
    assert local["low"] > 0.3
    assert rows["locality", "dealt"]["saved"] < local["saved"]
    # Two layers, there and back.
    assert local["bytes"] == pytest.approx(local["token_copies"] * 2 * 2 * 200)
    for layer in found.layers:
        nodes = np.array(layer["physical_to_logical_map"]).reshape(2, 4) % 2
        assert [set(row) for row in nodes.tolist()] in ([{0}, {1}], [{1}, {0}])
    assert found.sentence.startswith("A token is sent to")
    assert {finding.code for finding in found.findings} == set()


def test_the_prompt_tells_where_a_request_runs_and_is_not_counted(tmp_path: Path) -> None:
    found = plan_routed(
        requests(tmp_path / "a.csv", phases=True), Cluster(2, 8, nodes=2), "locality"
    )
    assert by_key(found)["locality", "grouped"]["saved"] > 0.3
    assert by_key(found)["locality", "grouped"]["bytes"] is None


def test_where_all_requests_are_alike_nothing_is_promised(tmp_path: Path) -> None:
    found = plan_routed(requests(tmp_path / "a.csv", kinds=1), Cluster(2, 8, nodes=2), "locality")
    row = by_key(found)["locality", "grouped"]
    assert abs(row["saved"]) < 0.2
    assert row["low"] < 0.05


def test_experts_that_are_active_together_are_parted(tmp_path: Path) -> None:
    together = [[1, 1, 0, 0, 1, 1, 0, 0], [0, 0, 1, 1, 0, 0, 1, 1]]
    order = np.random.default_rng(0).integers(0, 2, 40)
    path = logged(tmp_path / "a.csv", [[together[kind]] for kind in order])
    found = plan_routed(path, Cluster(4, 8), "active")
    rows = {row["what"]: row for row in found.activity}
    assert rows["contiguous"]["blocks"] == 2
    assert rows["active"]["blocks"] == rows["active"]["active"] == 1
    assert rows["active"]["saved"] == rows["active"]["low"] == 0.5
    assert found.traffic == ()


def test_decode_is_planned_for_by_its_own_steps(tmp_path: Path) -> None:
    log = requests(tmp_path / "a.csv", phases=True)
    told = plan_routed(log, Cluster(4, 8), "active")
    assert "no_phases" not in {finding.code for finding in told.findings}
    untold = plan_routed(requests(tmp_path / "b.csv"), Cluster(4, 8), "active")
    assert [finding.code for finding in untold.findings] == ["no_phases"]


def test_loads_are_judged_on_steps_of_the_other_half(tmp_path: Path) -> None:
    """The pairs that balance even steps (0 with 3, 1 with 2) do not balance odd ones."""
    path = logged(tmp_path / "a.csv", [[[4, 3, 2, 1]], [[4, 1, 2, 3]]] * 6)
    found = plan_routed(path, Cluster(2, 4), "best")
    assert found.layers[0]["max_load"] == 72
    assert found.held_out[0]["device_loads"] == [84, 36]


def test_a_memory_budget_decides_the_slots(tmp_path: Path) -> None:
    path = logged(tmp_path / "a.csv", np.tile([30, 10, 10, 10], (6, 2, 1)))
    # A slot a GPU costs 2 layers x 5 bytes.
    found = plan_routed(path, Cluster(2, 2), "eplb", memory=Memory(20, 5))
    assert [len(layer["physical_to_logical_map"]) for layer in found.layers] == [8, 8]
    assert [(row["redundant"], row["bytes"]) for row in found.replicas] == [
        (0, 0),
        (2, 10),
        (4, 20),
    ]
    # 40 of 60 on one GPU, then 30 on both.
    assert [row["saved"] for row in found.replicas] == pytest.approx([0, 0.25, 0.25])
    assert [row["pays"] for row in found.replicas] == [False, True, False]
    assert "of which 2 pay" in found.also[0]


def written(path: Path, map_: list[list[int]]) -> Path:
    path.write_text(json.dumps(map_), encoding="utf-8")
    return path


def test_a_map_is_judged_on_a_log_by_what_decode_reads(tmp_path: Path) -> None:
    together = [[1, 1, 0, 0, 1, 1, 0, 0], [0, 0, 17, 1, 0, 0, 1, 1]]
    log = logged(tmp_path / "a.csv", [[together[kind]] for kind in (0, 1, 1)])
    found = evaluate_routed(written(tmp_path / "m.json", [[0, 2, 1, 3, 4, 6, 5, 7]]), log, 4)
    rows = {row["what"]: row for row in found.activity}
    # Neighbours are active together; 17 rows of one expert are two blocks.
    assert rows["contiguous"]["blocks"] == pytest.approx((2 + 3 + 3) / 3)
    assert rows["this map"]["blocks"] == pytest.approx((1 + 2 + 2) / 3)
    assert rows["this map"]["active"] == 1
    assert found.layers[0]["device_loads"] == [35, 3, 3, 3]
    assert found.before == ([2, 36, 2, 4],)
    assert found.held_out == found.traffic == ()


def test_a_map_is_judged_on_a_log_by_what_leaves_a_node(tmp_path: Path) -> None:
    log = requests(tmp_path / "a.csv", phases=True)
    map_ = written(tmp_path / "m.json", [[0, 2, 4, 6, 1, 3, 5, 7]] * 2)
    rows = by_key(evaluate_routed(map_, log, 2, nodes=2, copy_bytes=100))
    # Kinds choose even experts or odd ones: a token leaves wherever its request is not at home.
    kinds = dict.fromkeys(range(24), 0)
    for line in log.read_text(encoding="utf-8").splitlines()[1:]:
        kinds[int(line.split(",")[0])] = int(line.split(",")[-1]) % 2
    away = sum(kind != request % 2 for request, kind in kinds.items()) / 24
    assert rows["this map", "dealt"]["token_copies"] == pytest.approx(away)
    assert rows["this map", "dealt"]["choice_copies"] == pytest.approx(2 * away)
    # As many requests run on each node: those of the larger kind that are too many do not fit.
    left = abs(sum(kinds.values()) - 12) / 24
    assert rows["this map", "grouped"]["token_copies"] == pytest.approx(left)
    assert rows["this map", "grouped"]["bytes"] == pytest.approx(left * 2 * 2 * 100)


def test_a_map_may_hold_experts_that_the_log_never_names(tmp_path: Path) -> None:
    log = logged(tmp_path / "a.csv", [[[3, 1]]])
    found = evaluate_routed(written(tmp_path / "m.json", [[0, 3, 1, 2]]), log, 2)
    assert found.layers[0]["device_loads"] == [3, 1]
    with pytest.raises(PlacementError, match="2 layers"):
        evaluate_routed(written(tmp_path / "n.json", [[0, 1]] * 2), log, 2)


def test_what_cannot_be_answered_says_why(tmp_path: Path) -> None:
    counts = logged(tmp_path / "a.csv", [[[1, 2]]] * 3)
    with pytest.raises(InputError, match="counts"):
        plan_routed(counts, Cluster(2, 2, nodes=2), "locality")
    with pytest.raises(PlacementError, match="--nodes"):
        plan_routed(counts, Cluster(2, 2), "locality")
    with pytest.raises(MissingDataError, match="one step"):
        plan_routed(logged(tmp_path / "b.csv", [[[1, 2]]]), Cluster(2, 2), "best")
    # Nodes are nothing to a plan from counts.
    assert plan_routed(counts, Cluster(2, 2, nodes=2), "best").traffic == ()


def test_the_command(tmp_path: Path) -> None:
    log, config = requests(tmp_path / "a.csv"), tmp_path / "config.json"
    config.write_text(CONFIG, encoding="utf-8")

    def run(*arguments: str | Path) -> Any:
        return CliRunner().invoke(main, ["placement", "plan", *map(str, arguments)])

    shape = ("--routing", log, "--gpus", "4", "--nodes", "2", "--config", config)
    plain, map_ = tmp_path / "plan.html", tmp_path / "map.json"
    budget = ("--memory-budget", "0.0001", "--algorithm", "locality")
    found = json.loads(run(*shape, *budget, "--map-output", map_, "--format", "json").stdout)
    # 2 layers of 30,000 bytes a slot: one a GPU.
    assert [row["slots"] for row in found["replicas"]] == [8, 12]
    assert found["traffic"][0]["bytes"] > 0
    assert json.loads(map_.read_text(encoding="utf-8")) == {
        "physical_to_logical_map": [row["physical_to_logical_map"] for row in found["layers"]]
    }
    loads = tmp_path / "loads.csv"
    loads.write_text("1,2,3,4,5,6,7,8\n" * 2, encoding="utf-8")
    judged = CliRunner().invoke(
        main, ["placement", "evaluate", "--map", str(map_), "--loads", str(loads), "--gpus", "4"]
    )
    assert judged.exit_code == 0
    judge = ["placement", "evaluate", "--map", str(map_)]
    on_log = CliRunner().invoke(
        main, [*judge, "--routing", str(log), "--gpus", "4", "--nodes", "2", "--format", "json"]
    )
    assert {row["what"] for row in json.loads(on_log.stdout)["traffic"]} == {
        "contiguous",
        "this map",
    }
    on_loads = [*judge, "--loads", str(loads), "--gpus", "4", "--nodes", "2"]
    assert "--nodes needs --routing" in CliRunner().invoke(main, on_loads).output
    assert "--loads or --routing" in CliRunner().invoke(main, judge).output
    assert run(*shape, "--slots", "8", "-o", plain).exit_code == 0
    page = plain.read_text(encoding="utf-8")
    assert "before and after" in page
    assert "What a step waits for" in page
    for wrong, says in (
        (("--gpus", "4", "--slots", "8"), "--loads or --routing"),
        ((*shape, "--slots", "8", "--memory-budget", "1"), "--slots or --memory-budget"),
        ((*shape, "--slots", "8", "--held-out", loads), "--held-out goes with --loads"),
        (("--loads", loads, "--gpus", "4", "--slots", "8", "--algorithm", "active"), "--routing"),
        (("--loads", loads, "--gpus", "4", "--memory-budget", "1"), "--config"),
    ):
        assert says in run(*wrong).output
