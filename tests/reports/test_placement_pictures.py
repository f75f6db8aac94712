"""Pictures of placements: before and after on one scale, and the report with routing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import nsysmoe
from nsysmoe.cli import main
from nsysmoe.errors import InputError
from nsysmoe.reports import render
from nsysmoe.reports.pages.comparing.report import report_page
from nsysmoe.reports.pictures.placement import busiest, copy_bars, critical_bars, heatmaps
from tests.conftest import GRAPHS


def test_before_and_after_share_a_scale_around_a_fair_share() -> None:
    drawn: Any = heatmaps(
        {"before": [[30.0, 10], [0, 0]], "after": [[20.0, 20], [0, 0]]}, "GPU", "layer"
    )
    one, other = drawn.data
    assert [list(row) for row in one.z] == [[1.5, 0.5], [None, None]]
    assert [list(row) for row in other.z] == [[1, 1], [None, None]]
    assert (one.zmin, one.zmax) == (other.zmin, other.zmax) == (0.5, 1.5)
    assert heatmaps({"before": [[0.0, 0]]}, "GPU", "layer") is None


def test_bars_are_what_was_asked() -> None:
    layers: Any = busiest({"before": [[30.0, 10]], "after": [[20.0, 20]]})
    assert [list(trace.y) for trace in layers.data] == [[1.5], [1.0]]
    times: Any = critical_bars([("all", "now", 4.0, 1.0), ("all", "plan", 4.0, 0.5)])
    assert [list(trace.x) for trace in times.data] == [[4, 4], [1, 0.5]]
    copies: Any = copy_bars([("a", 1.0, 2.0)])
    assert [list(trace.x) for trace in copies.data] == [[1], [2]]
    assert busiest({"before": [[0.0]]}) is critical_bars([]) is copy_bars([]) is None


def test_names_in_pictures_are_escaped() -> None:
    drawn: Any = heatmaps({"<b>%{x}": [[1.0, 2]]}, "GPU", "layer")
    assert "<b>%{x}" not in drawn.to_json()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    assert report("-o", path).exit_code == 0
    return path


@pytest.fixture(scope="module")
def said() -> str:
    """What the same report says as JSON."""
    return str(report("--format", "json").stdout)


def report(*more: str | Path) -> Any:
    arms = (GRAPHS / "eplb_off.sqlite", GRAPHS / "eplb_on.sqlite")
    beside = ("--routing", GRAPHS / "eplb_off.routed.npz", "--run", GRAPHS / "eplb_off.run.json")
    return CliRunner().invoke(main, ["report", *map(str, (*arms, *beside, *more))])


def test_a_report_with_routing_holds_the_advice(page: Path, said: str) -> None:
    text = page.read_text(encoding="utf-8")
    for part in (
        "By the baseline&#39;s routing: EPLB is",
        "Choices of each expert by layer",
        "Load of each device by layer, before and after",
        "Expected critical MoE time by placement",
        "When EPLB would not help",
        "A uniform router&#39;s imbalance by batch size",
        "Over the run the busiest expert of a layer",
    ):
        assert part in text
    found = json.loads(said)
    assert found["advice"]["worth"] is True
    assert found["portraits"]


def test_python_answers_as_the_command(said: str) -> None:
    arms = [GRAPHS / f"eplb_{arm}.sqlite" for arm in ("off", "on")]
    log, record = GRAPHS / "eplb_off.routed.npz", GRAPHS / "eplb_off.run.json"
    found = nsysmoe.report(*arms, routing=log, run=record)
    assert found.routed is not None
    # Equal to the last bit: nothing is added up in an order that threads decide.
    assert found.routed.advice == nsysmoe.advise(log, trace=arms[0], run=record)
    assert found.routed.balance == nsysmoe.routing_balance([log])
    made = render(report_page(found.comparison, found.portraits, found.routed), "json")
    assert made == said
    assert nsysmoe.report(*arms).routed is None


def test_python_refuses_what_belongs_to_routing() -> None:
    with pytest.raises(InputError, match="give routing as well"):
        nsysmoe.report(GRAPHS / "eplb_off.sqlite", GRAPHS / "eplb_on.sqlite", gpus=4)


def test_what_belongs_to_routing_is_refused_without_it() -> None:
    arms = [str(GRAPHS / f"eplb_{arm}.sqlite") for arm in ("off", "on")]
    found = CliRunner().invoke(main, ["report", *arms, "--redundant", "2"])
    assert found.exit_code == 2
    assert "go with --routing" in found.output
