"""``nsysmoe correlate`` on tables whose correlation is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner, Result

from nsysmoe.cli import main


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["correlate", *map(str, arguments)])


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Baseline rises exactly with one outlier; all2all is flat; two runs a point."""
    rows: list[dict[str, Any]] = []
    for routing in ("baseline", "all2all"):
        for number in range(8):
            for repeat in (1, 2):
                score = 0.4 + 0.02 * number
                tpot = (0.01 + score) if routing == "baseline" else 0.5
                rows.append(
                    {
                        "point": f"{routing}-{number}",
                        "routing": routing,
                        "repeat": repeat,
                        "expected_score": score,
                        "tpot_s": tpot + (-0.001 if repeat == 1 else 0.001),
                    }
                )
        rows.append({**rows[-1], "point": f"{routing}-8", "expected_score": 0.47, "tpot_s": 9.0})
    path = tmp_path / "sweep.parquet"
    pl.DataFrame(rows).write_parquet(path)
    return path


def test_both_results_and_how_many_were_removed(table: Path) -> None:
    found = run(table, "--y", "tpot", "--format", "json")
    assert found.exit_code == 0
    first, second = json.loads(found.stdout)
    assert (first["group"], first["x"], first["y"]) == ("baseline", "expected_score", "tpot_s")
    assert (first["points"], first["removed"], first["iqr_filter"]) == (9, 1, True)
    assert first["filtered"]["pearson"]["value"] == pytest.approx(1)
    assert first["filtered"]["slope"]["value"] == pytest.approx(1)
    assert first["unfiltered"]["points"] == 9
    assert abs(first["unfiltered"]["pearson"]["value"]) < 0.5
    assert second["filtered"]["pearson"] is None


def test_table_leads_with_a_sentence_and_the_removed(table: Path) -> None:
    text = run(table, "--y", "tpot").stdout
    assert text.startswith("1 of 2 linear correlations exclude 0: tpot_s with expected_score")
    assert "The IQR rule removes 2 of 18 points" in text
    without = run(table, "--y", "tpot", "--no-iqr").stdout
    assert without.startswith("No linear correlation excludes 0 among 2")
    assert "would remove (it is off) 2 of 18" in without
    assert without.index("With all points") < without.index("Without outliers")


def test_three_points_have_no_interval_to_exclude_anything(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("point,routing,tpot_s,x\na,r,1,1\nb,r,2,2.1\nc,r,3,3\n")
    text = run(path, "--x", "x", "--y", "tpot_s").stdout
    assert text.startswith("No correlation has an interval: that takes four points or more")


def test_runs_as_points_and_all_together(table: Path) -> None:
    rows = json.loads(run(table, "--y", "tpot_s", "--each-run", "--format", "json").stdout)
    assert [row["points"] for row in rows] == [17, 17]
    (row,) = json.loads(run(table, "--y", "tpot", "--together", "--format", "json").stdout)
    assert (row["group"], row["points"]) == ("all", 18)


def test_unknown_values_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("expected_score,tpot_s\n1,2\n2,\n3,5\n,4\n4,1\n5,7\n")
    found = run(path, "--y", "tpot", "--format", "json")
    (row,) = json.loads(found.stdout)
    assert (row["points"], row["unknown"]) == (4, 2)
    assert "2 point(s) lack a value" in found.stderr


def test_results_without_a_routing_are_a_group(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(
        "routing,expected_score,tpot_s\n" + "".join(f",{n},{n * n}\n" for n in range(5))
    )
    (row,) = json.loads(run(path, "--y", "tpot", "--format", "json").stdout)
    assert (row["group"], row["points"]) == ("unknown", 5)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "a,b\n1,2\n", "has no column expected_score; numbers are in a, b"),
        ("t.csv", "expected_score,tpot_s\nx,y\n", "holds no number"),
        ("t.csv", "expected_score,tpot_s\n", "has no row"),
        ("t.txt", "", "must end in .parquet, .csv or .json"),
        ("t.parquet", "PAR1", "no parquet that can be read"),
        ("t.json", "{", "no json that can be read"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path: Path, name: str, content: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    found = run(path, "--y", "tpot")
    assert found.exit_code == 1
    assert message in found.stderr
    assert found.stderr.count("\n") == 1


def test_a_table_that_is_not_there(tmp_path: Path) -> None:
    found = run(tmp_path / "none.parquet")
    assert found.exit_code == 1
    assert "cannot be read (No such file" in found.stderr
