"""``nsysmoe figures``: rows by hand, pictures for what the table holds, files beside them."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner, Result

from nsysmoe.analysis.experiments.figures import figures
from nsysmoe.cli import main
from nsysmoe.errors import MissingDataError
from nsysmoe.reports.pictures.sweep import sweep_figure

SWEEP = Path(__file__).parents[2] / "fixtures" / "sweep"


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["figures", *map(str, arguments)])


def row(routing: str, seqs: int, tokens: int, repeat: int, tpot: float) -> dict[str, Any]:
    return {
        "point": f"{routing}-{seqs}-{tokens}",
        "routing": routing,
        "max_num_seqs": seqs,
        "max_num_batched_tokens": tokens,
        "repeat": repeat,
        "ttft_s": 0.1,
        "tpot_s": tpot,
        "output_tokens_per_s": 100.0,
        "expected_score": 0.4 + seqs / 100 + tokens / 1e6,
    }


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Two settings of each axis; TPOT is the number of sequences in ms, and 1 ms between runs."""
    rows = [
        row(routing, seqs, tokens, repeat, (seqs + tokens / 2048 + repeat) / 1000 + extra)
        for routing, extra in (("baseline", 0.0), ("all2all", 0.05))
        for seqs in (4, 8)
        for tokens in (2048, 4096)
        for repeat in (0, 2)
    ]
    path = tmp_path / "sweep.parquet"
    pl.DataFrame(rows).write_parquet(path)
    return path


def test_lines_are_means_over_the_other_axis(table: Path) -> None:
    """At 4 sequences: points of 4 + 1 + 1 and 4 + 2 + 1 ms (means of their repeats)."""
    panels = figures(table).figures[1].panels
    first = panels[0].rows[0]
    assert (panels[0].x, panels[0].y) == ("max_num_seqs", "tpot_s")
    assert (first["routing"], first["x"], first["points"]) == ("baseline", 4, 2)
    assert (first["y"], first["low"], first["high"]) == pytest.approx((0.0065, 0.006, 0.007))
    assert [one["routing"] for one in panels[0].rows] == ["baseline"] * 2 + ["all2all"] * 2
    assert panels[1].x == "max_num_batched_tokens"
    assert panels[1].rows[0]["y"] == pytest.approx((6 + 10) / 2 / 1000)


def test_means_of_an_incomplete_grid_are_over_the_same_settings(tmp_path: Path) -> None:
    """Without 8 sequences and 4096 tokens of one routing, two points remain by each axis.

    Else 4096 tokens would look fast, for they were run with 4 sequences alone.
    """
    rows = [
        {**row(routing, seqs, tokens, 0, seqs / 1000 + extra), "ep": bool(extra)}
        for routing, extra in (("baseline", 0.0), ("all2all", 0.05))
        for seqs in (4, 8)
        for tokens in (2048, 4096)
        if (routing, seqs, tokens) != ("baseline", 8, 4096)
    ]
    path = tmp_path / "sweep.parquet"
    pl.DataFrame(rows).write_parquet(path)
    found = figures(path)
    by_seqs, by_tokens = found.figures[1].panels
    assert {(one["routing"], one["x"]): one["y"] for one in by_seqs.rows} == {
        ("baseline", 4): 0.004, ("baseline", 8): 0.008,
        ("all2all", 4): pytest.approx(0.054), ("all2all", 8): pytest.approx(0.058),
    }  # fmt: skip
    assert {one["y"] for one in by_tokens.rows if one["routing"] == "baseline"} == {0.004}
    assert (by_seqs.unpaired, by_tokens.unpaired) == (3, 3)
    (finding,) = found.findings
    assert (finding.code, finding.evidence) == (
        "incomplete_grid", {"max_num_seqs": 3, "max_num_batched_tokens": 3}
    )  # fmt: skip


def test_means_over_different_settings_are_named_such(tmp_path: Path) -> None:
    """4 sequences were run with 2048 tokens, 8 with 4096: nothing tells which of them it was."""
    rows = [row("all2all", 4, 2048, 0, 0.004), row("all2all", 8, 4096, 0, 0.008)]
    path = tmp_path / "sweep.parquet"
    pl.DataFrame(rows).write_parquet(path)
    found = figures(path)
    assert [one["y"] for one in found.figures[1].panels[0].rows] == [0.004, 0.008]
    assert [(one.code, one.evidence) for one in found.findings] == [
        ("unpaired_settings", {"x": x, "others": [other]})
        for x, other in (
            ("max_num_seqs", "max_num_batched_tokens"), ("max_num_batched_tokens", "max_num_seqs")
        )
    ]  # fmt: skip


def test_what_somebody_measured_besides_is_no_setting(table: Path, tmp_path: Path) -> None:
    """Watts of each point differ, and say nothing about which points belong together."""
    frame = pl.read_parquet(table)
    watts = frame.with_columns(power_w=pl.int_range(frame.height) * 0.3)
    watts.write_parquet(tmp_path / "watts.parquet")
    assert figures(tmp_path / "watts.parquet").figures == figures(table).figures


def test_the_recorded_sweep_draws_what_it_ran() -> None:
    recorded = pl.read_parquet(SWEEP / "grid.parquet")
    assert recorded.height == 18
    found = figures(SWEEP / "grid.parquet")
    assert [len(figure.panels) for figure in found.figures] == [2, 2, 2, 0, 0]
    assert found.findings == ()
    means = {(one["routing"], one["x"]): one["y"] for one in found.figures[1].panels[0].rows}
    for (routing, seqs), value in means.items():
        points = recorded.filter(routing=routing, max_num_seqs=seqs)["tpot_s"]
        assert value == pytest.approx(sum(points) / 3)


def test_page_holds_what_the_table_does(table: Path, tmp_path: Path) -> None:
    found = run(table)
    assert found.stdout.startswith(
        "The table holds figures 1, 2, 3, 4 of the paper; the table lacks the columns of 5."
    )
    page = tmp_path / "figures.html"
    assert run(table, "-o", page).exit_code == 0
    text = page.read_text()
    assert text.count("Plotly.newPlot(") >= 4
    assert "Figure 5: performance against observed imbalance" in text
    shown = sweep_figure(figures(table).figures[3])
    assert shown is not None
    assert len(shown.data) == 3 * 2


def test_rows_as_csv_and_json_agree(table: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    assert run(table, "--folder", folder).exit_code == 0
    assert sorted(path.name for path in folder.iterdir()) == [
        f"figure-{number}.csv" for number in (1, 2, 3, 4)
    ]
    with (folder / "figure-2.csv").open() as file:
        rows = list(csv.DictReader(file))
    data = json.loads(run(table, "--format", "json").stdout)
    expected = [one for panel in data[1]["panels"] for one in panel["rows"]]
    assert [float(one["y"]) for one in rows] == [one["y"] for one in expected]


def test_outliers_are_dropped_aloud(tmp_path: Path) -> None:
    tpots = [10, 11, 12, 11, 10, 12, 900]
    rows = [row("baseline", 4 + n, 2048, 1, tpot / 1000) for n, tpot in enumerate(tpots)]
    path = tmp_path / "t.json"
    pl.DataFrame(rows).write_json(path)
    found = figures(path)
    panel = found.figures[3].panels[1]
    assert (panel.removed, [one["kept"] for one in panel.rows].index(False)) == (1, 6)
    assert "1 in figure 4" in found.findings[0].message
    assert figures(path, iqr=False).figures[3].panels[1].removed == 0
    shown = sweep_figure(found.figures[3])
    assert shown is not None
    assert [len(trace.x) for trace in shown.data] == [7, 6, 7]


def test_a_table_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(MissingDataError, match="holds no figure"):
        figures(path)


def test_static_pictures_need_what_draws_them(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "kaleido", None)
    assert run(table, "--static", "svg").exit_code == 2
    found = run(table, "--folder", tmp_path / "out", "--static", "svg")
    assert found.exit_code == 1
    assert "pip install 'nsysmoe[static]'" in found.stderr


def test_names_in_a_table_stay_text(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    pl.DataFrame([row("<script>x</script>", 4, 2048, 1, 0.01)]).write_json(path)
    page = tmp_path / "f.html"
    assert run(path, "-o", page).exit_code == 0
    assert "<script>x" not in page.read_text()
