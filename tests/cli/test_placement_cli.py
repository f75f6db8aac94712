"""``nsysmoe placement``: files in, plans out, and one line for what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from nsysmoe.cli import main
from tests.conftest import GRAPHS

LOADS = "90,132,40,61,104,165,39,4,73,56,183,86\n20,107,104,64,19,197,187,157,172,86,16,27\n"


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["placement", *map(str, arguments)])


@pytest.fixture
def loads(tmp_path: Path) -> Path:
    path = tmp_path / "loads.csv"
    path.write_text(LOADS, encoding="utf-8")
    return path


def test_a_plan_is_read_back(loads: Path, tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    shape = ("--gpus", "8", "--slots", "16", "--nodes", "2", "--groups", "4")
    assert run("plan", "--loads", loads, *shape, "--algorithm", "eplb", "-o", plan).exit_code == 0
    planned = json.loads(plan.read_text(encoding="utf-8"))["layers"]
    assert planned[0]["physical_to_logical_map"][:4] == [5, 6, 5, 7]
    assert planned[0]["balancedness"] == pytest.approx(0.8277, abs=5e-5)
    assert planned[1]["max_load"] == max(planned[1]["device_loads"]) == 179.5
    judged = json.loads(
        run("evaluate", "--map", plan, "--loads", loads, "--format", "json").stdout
    )["layers"]
    assert judged == planned


def test_plans_are_judged_on_loads_that_they_have_not_seen(loads: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text("1," * 11 + "100\n" + "1," * 11 + "100\n", encoding="utf-8")
    shape = ("--gpus", "4", "--slots", "12", "--format", "json")
    found = json.loads(run("plan", "--loads", loads, *shape, "--held-out", other).stdout)
    assert [row["max_load"] for row in found["held_out"]] == [102, 102]
    assert found["findings"] == []
    alone = json.loads(run("plan", "--loads", loads, *shape).stdout)
    assert [finding["code"] for finding in alone["findings"]] == ["in_sample"]


def test_groups_that_an_algorithm_does_not_keep_are_named(loads: Path) -> None:
    shape = ("--gpus", "4", "--slots", "12", "--nodes", "2", "--groups", "4", "--format", "json")
    for algorithm, code in (("lpt", True), ("eplb", False), ("best", False)):
        found = json.loads(run("plan", "--loads", loads, *shape, "--algorithm", algorithm).stdout)
        assert ("groups_not_kept" in [row["code"] for row in found["findings"]]) is code


def test_maps_of_other_forms(loads: Path, tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    row = list(range(12))
    for document in ([row, row], {"physical_to_logical_map": [row, row]}):
        path.write_text(json.dumps(document), encoding="utf-8")
        found = run("evaluate", "--map", path, "--loads", loads, "--gpus", "4", "--format", "json")
        assert json.loads(found.stdout)["layers"][0]["max_load"] == 330
    assert "give --gpus" in run("evaluate", "--map", path, "--loads", loads).output
    path.write_text('{"physical_to_logical_map": false}', encoding="utf-8")
    assert "of layers by slots" in run("evaluate", "--map", path, "--loads", loads).output


def test_the_record_of_a_run_holds_a_map(tmp_path: Path) -> None:
    path = tmp_path / "loads.csv"
    path.write_text("1,2,3,4,5,6,7,8\n" * 4, encoding="utf-8")
    record = GRAPHS / "eplb_on.run.json"
    found = run("evaluate", "--map", record, "--loads", path, "--gpus", "2", "--format", "json")
    layers = json.loads(found.stdout)["layers"] if found.exit_code == 0 else []
    maps = json.loads(record.read_text(encoding="utf-8"))["eplb_after"][0]["models"]
    (model,) = maps.values()
    expected = model["physical_to_logical_map"]
    if len(expected) == 4:
        assert [layer["physical_to_logical_map"] for layer in layers] == expected
    else:
        assert f"the map has {len(expected)} layers" in found.output


def test_pictures_and_tables(loads: Path, tmp_path: Path) -> None:
    page = tmp_path / "plan.html"
    assert run("plan", "--loads", loads, "--gpus", "4", "--slots", "12", "-o", page).exit_code == 0
    assert "Load of each device" in page.read_text(encoding="utf-8")
    text = run("plan", "--loads", loads, "--gpus", "4", "--slots", "12").output
    assert text.startswith("Best: the busiest GPU carries")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "holds no loads"),
        ("a,b\n1,2\n", "line 1"),
        ("1,2\n\x1f\n", "line 2"),
        ("1,2\n3\n", "layer 1 has 1 experts"),
        ("1,-2\n", "between 0"),
        ("1,nan\n", "between 0"),
        ("1,2,3\n", "do not divide"),
    ],
)
def test_bad_loads_give_one_line(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "loads.csv"
    path.write_text(text, encoding="utf-8")
    found = run("plan", "--loads", path, "--gpus", "2", "--slots", "5")
    assert found.exit_code == 1
    assert says in found.output
    assert len(found.output.strip().splitlines()) == 1


@pytest.mark.parametrize(
    "text", ["[[0, 1", "{}", '{"layers": [1]}', "[[0, 1], [0]]", '[["a"]]', "[[-1, 0]]", "7"]
)
def test_bad_maps_give_one_line(loads: Path, tmp_path: Path, text: str) -> None:
    path = tmp_path / "map.json"
    path.write_text(text, encoding="utf-8")
    found = run("evaluate", "--map", path, "--loads", loads, "--gpus", "1")
    assert found.exit_code == 1
    assert len(found.output.strip().splitlines()) == 1
