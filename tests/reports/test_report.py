"""The report: what its pictures hold, in which order it stands, and how it opens in a browser."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from nsysmoe.analysis.comparing.comparison import Comparison
from nsysmoe.analysis.comparing.portrait import Portrait
from nsysmoe.errors import OutputError
from nsysmoe.reports import TEXT_FORMATS, pictures, render
from nsysmoe.reports.document import Picture
from nsysmoe.reports.pages.comparing.report import report_page
from nsysmoe.reports.pages.one_trace.timeline import timeline_page
from nsysmoe.reports.static import write_pictures
from tests.reports import portraits
from tests.reports.portraits import HOSTILE, comparison, hostile, portrait
from tests.reports.test_browser import CHROMIUM, opened_in_chromium

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from nsysmoe.reports import Document

PAIR = (
    portraits.rearranged(portrait("EPLB OFF", skew=0.3)),
    portraits.rearranged(portrait("EPLB ON", skew=0.1)),
)
OF_PORTRAITS = (
    pictures.where_time_went,
    pictures.critical_by_phase,
    pictures.duration_distributions,
    pictures.wait_and_transfer,
    pictures.layer_heatmap,
    pictures.cells_over_time,
    pictures.step_timeline,
)
CAPTIONS = [
    "Changes of Table 1",
    "From one wall time to the other",
    "Where the time went",
    "Critical MoE time by phase",
    "How long MoE launches took",
    "Waiting and transferring in collectives",
    "MoE time by layer and rank",
    "Balance over time",
    "One step, kernel by kernel",
]


@pytest.fixture(scope="module")
def report() -> Document:
    return report_page(comparison(), PAIR)


def _drawn(draw: Callable[..., Any], rows: Any) -> Any:
    figure = draw(rows)
    assert figure is not None
    return figure


def _sums(figure: Any) -> list[float]:
    """Return how long each stacked bar is."""
    return [sum(values) for values in zip(*(trace.x for trace in figure.data), strict=True)]


def test_parts_add_up_to_the_window() -> None:
    figure = _drawn(pictures.where_time_went, PAIR)
    assert [trace.name for trace in figure.data] == [
        "MoE", "other compute", "transfer, exposed", "wait, exposed", "copy", "idle",
    ]  # fmt: skip
    windows = [[row["window_ns"] / 1e6 for row in arm.time_use] for arm in PAIR]
    expected = [sum(arm) / 2 for arm in windows]
    for rank in range(2):
        expected += [arm[rank] for arm in windows]
    assert _sums(figure) == pytest.approx(expected)
    assert figure.layout.yaxis.ticktext[:4] == (
        "mean · EPLB OFF", "mean · EPLB ON", "rank 0 · EPLB OFF", "rank 0 · EPLB ON",
    )  # fmt: skip


def test_one_gpu_has_no_mean_beside_it() -> None:
    alone = portrait("one", ranks=1)
    assert len(_drawn(pictures.where_time_went, [alone]).data[0].x) == 1


def test_an_unknown_part_makes_an_unknown_mean() -> None:
    rows = tuple({**row, "copy_ns": None} for row in PAIR[0].time_use)
    figure = _drawn(pictures.where_time_went, [replace(PAIR[0], time_use=rows)])
    assert "copy" not in [trace.name for trace in figure.data]


def test_mean_and_excess_make_what_is_critical() -> None:
    expected = [
        arm.phases[number]["critical_ns"] / 1e6 for number in range(3) for arm in PAIR
    ]  # fmt: skip
    assert _sums(_drawn(pictures.critical_by_phase, PAIR)) == pytest.approx(expected)


def test_waiting_is_drawn_for_each_rank_of_both_arms() -> None:
    figure = _drawn(pictures.wait_and_transfer, PAIR)
    assert [trace.name for trace in figure.data] == ["transfer", "wait", "unmatched"]
    assert list(figure.layout.yaxis.ticktext) == [
        "rank 0 · EPLB OFF", "rank 0 · EPLB ON", "rank 1 · EPLB OFF", "rank 1 · EPLB ON",
    ]  # fmt: skip


def test_ranks_that_are_not_known_are_told_apart() -> None:
    rows = tuple({**row, "rank": None} for row in PAIR[0].communication)
    figure = _drawn(pictures.wait_and_transfer, [replace(PAIR[0], communication=rows)])
    assert len(set(figure.layout.yaxis.ticktext)) == 2


def test_an_outline_holds_every_launch() -> None:
    figure = _drawn(pictures.duration_distributions, PAIR)
    assert len(figure.data) == 4, "two phases of two arms"
    assert [trace.showlegend for trace in figure.data] == [True, False, True, False]
    # Each bin has two corners that hold its launches.
    launches = sum(y for trace in figure.data[:2] for y in trace.y if y >= 1) / 2
    assert launches == sum(row["launches"] for row in PAIR[0].durations)
    for trace in figure.data:
        assert trace.y[0] == trace.y[-1] < 1
        assert list(trace.x) == sorted(trace.x)


def test_both_heatmaps_share_one_scale_around_1() -> None:
    figure = _drawn(pictures.layer_heatmap, PAIR)
    assert [trace.coloraxis for trace in figure.data] == ["coloraxis", "coloraxis"]
    assert all(trace.zmin is None for trace in figure.data)
    scale = figure.layout.coloraxis
    widest = max(abs(row["ratio"] - 1) for arm in PAIR for row in arm.layers)
    assert scale.cmin == pytest.approx(1 - widest)
    assert scale.cmid == 1
    assert scale.cmin + scale.cmax == pytest.approx(2)
    assert len(figure.data[0].z) == 8
    row = PAIR[0].layers[5]
    assert figure.data[0].z[row["layer"]][row["rank"]] == pytest.approx(row["ratio"], abs=1e-4)
    assert figure.data[0].customdata[row["layer"]][row["rank"]] == row["dur_ns"] / 1e6


def test_a_layer_that_one_arm_lacks_is_a_gap() -> None:
    fewer = replace(PAIR[1], layers=PAIR[1].layers[:4])
    figure = _drawn(pictures.layer_heatmap, [PAIR[0], fewer])
    assert list(figure.data[1].z[7]) == [None, None]


def test_distorted_steps_and_rearrangements_are_marked() -> None:
    figure = _drawn(pictures.cells_over_time, PAIR)
    assert [trace.name for trace in figure.data] == 2 * [
        "worst cell", "median cell", "distorted step", "rearrangement",
    ]  # fmt: skip
    crosses, marks = figure.data[2], figure.data[3]
    assert len(crosses.x) == 2
    assert "autotuning" in crosses.text[0]
    assert "96 transfers" in marks.text[0]
    assert len(figure.layout.shapes) == 6, "three bands in each row"
    assert {shape.xref for shape in figure.layout.shapes} == {"x", "x2"}


def test_each_kernel_is_one_bar_in_its_rank_and_colour() -> None:
    figure = _drawn(pictures.step_timeline, PAIR)
    assert len(figure.data) == 10, "five kinds in two arms"
    assert sum(len(trace.x) for trace in figure.data) == sum(len(arm.timeline) for arm in PAIR)
    assert min(min(trace.base) for trace in figure.data) == 0
    assert len({trace.marker.color for trace in figure.data}) == 5
    assert figure.layout.yaxis.ticktext == ("rank 0", "rank 1")
    kernel = next(row for row in PAIR[0].timeline if row["kind"] == "transfer")
    assert figure.data[2].customdata[0] == kernel["dur_ns"] / 1e3


def test_thousands_of_kernels_stay_small() -> None:
    long = portrait("long", ranks=8, layers=90)
    assert len(long.timeline) > 5000
    assert len(_drawn(pictures.step_timeline, [long]).to_json()) < 1_000_000


def test_intervals_decide_the_colour() -> None:
    figure = _drawn(pictures.change_intervals, comparison().metrics)
    assert {trace.name.partition(":")[0]: len(trace.x) for trace in figure.data} == {
        "better": 1, "worse": 2, "may be no change": 2, "no interval": 3,
    }  # fmt: skip
    better = figure.data[0]
    assert (better.x[0] - better.error_x.arrayminus[0]) == pytest.approx(-8)
    assert (better.x[0] + better.error_x.array[0]) == pytest.approx(-2)
    assert not figure.data[3].error_x.visible


def test_a_comparison_without_intervals_is_drawn_as_well() -> None:
    values = comparison().to_dict()
    for metric in values["metrics"]:
        metric["interval"] = None
    plain = Comparison.from_dict(values)
    figure = _drawn(pictures.change_intervals, plain.metrics)
    assert [trace.name for trace in figure.data] == ["no interval"]


@pytest.mark.parametrize("draw", OF_PORTRAITS)
def test_nothing_to_draw(draw: Callable[..., Any]) -> None:
    empty = Portrait("empty", "empty.sqlite")
    assert draw((empty, empty)) is None
    assert draw((empty, PAIR[1])) is not None, "the other arm is drawn alone"


def test_no_change_to_draw() -> None:
    assert pictures.change_intervals([]) is None
    assert pictures.wall_time_waterfall([], "OFF", "ON") is None


def _waterfall(causes: Any, label: str) -> Any:
    return _drawn(lambda rows: pictures.wall_time_waterfall(rows, "OFF", label), causes).to_dict()


def test_the_waterfall_ends_at_the_other_wall_time() -> None:
    drawn = _waterfall(comparison().causes, portraits.HOSTILE)
    (bars,) = drawn["data"]
    assert list(bars["x"]) == [600.0, -65.0, 15.0, 1.0, 551.0]
    assert list(bars["measure"]) == ["absolute", *["relative"] * 3, "total"]
    assert list(bars["text"]) == ["600.0", "-65.0", "+15.0", "+1.0", "551.0"]
    low, high = drawn["layout"]["xaxis"]["range"]
    assert 0 < low < 535
    assert high > 600
    assert "does not begin at 0" in drawn["layout"]["xaxis"]["title"]["text"]
    assert "&lt;script&gt;" in drawn["layout"]["yaxis"]["ticktext"][-1]


def test_a_waterfall_over_runs_says_how_sure_each_part_is() -> None:
    """Both arms of three runs; t of four degrees of freedom is 2.776: ± 2.776 √(2 / 3) ms."""
    rows = [
        {"cause": cause, "baseline_ns": 2e6, "candidate_ns": 5e6, "change_ns": 3e6,
         "baseline_values": [1e6, 2e6, 3e6], "candidate_values": [4e6, 5e6, 6e6]}
        for cause in ("host", "sync")
    ]  # fmt: skip
    (bars,) = _waterfall(rows, "ON")["data"]
    assert list(bars["text"]) == ["4.0", "+3.0 ± 2.3", "+3.0 ± 2.3", "10.0"]


def test_a_waterfall_of_large_changes_begins_at_0() -> None:
    causes = [
        {"cause": "host", "baseline_ns": 9e8, "candidate_ns": 1e8, "change_ns": -8e8},
        {"cause": "moe", "baseline_ns": 1e8, "candidate_ns": 1e8, "change_ns": 0},
    ]
    drawn = _waterfall(causes, "ON")
    assert drawn["layout"]["xaxis"]["range"][0] == 0


@pytest.mark.parametrize("draw", OF_PORTRAITS)
def test_hostile_names_are_text_in_every_figure(draw: Callable[..., Any]) -> None:
    drawn = _drawn(draw, [hostile(arm) for arm in PAIR]).to_plotly_json()
    texts = list(_texts(drawn))
    assert any("&lt;script&gt;" in text for text in texts)
    for text in texts:
        assert "<script" not in text
        assert "<b>bold" not in text
        assert "%{x}$" not in text
        assert "\u202e" not in text


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from (text for item in value.values() for text in _texts(item))
    elif isinstance(value, list | tuple):
        yield from (text for item in value for text in _texts(item))


def test_the_order_of_the_page(report: Document) -> None:
    assert report.lead[0].startswith("EPLB made MoE more balanced")
    assert [table.caption for table in report.tables] == [
        "Table 1: EPLB OFF against EPLB ON",
        "Change of wall time by cause",
        "Beside Table 1: EPLB OFF against EPLB ON",
        "Where the time went",
        "Critical MoE time by phase",
        "Why ranks waited for the last one",
        "What if: each alone",
        "What if: in the order in which bottlenecks fall",
    ]
    assert [picture.caption for picture in report.pictures] == CAPTIONS
    assert all(picture.note for picture in report.pictures)
    assert "EPLB ON: Drawn are the 112 longest kernels of the step." in report.notes
    page = re.sub(r"<script.*?</script>", "", render(report, "html"), flags=re.DOTALL)
    headings = re.findall(r"<h2>(.*?)</h2>", page)
    assert headings == [
        report.tables[0].caption,
        "Before you believe it",
        *CAPTIONS,
        *(table.caption for table in report.tables[1:]),
    ]
    assert page.index("EPLB made MoE more balanced") < page.index("Table 1")


def test_tables_hold_what_is_drawn(report: Document) -> None:
    causes, _, window, phases, waits, alone, order = report.tables[1:]
    assert [(row.group, row.cells) for row in causes.rows] == [
        ("MoE: -65.00 ms", ("MoE kernels", "455.00", "430.00", "-25.00")),
        ("MoE: -65.00 ms", ("waiting: MoE kernels took longer on another rank", "60.00", "20.00",
                            "-40.00")),
        ("Transfer: +15.00 ms", ("transfer", "80.00", "95.00", "+15.00")),
        ("Unexplained: +1.00 ms", ("waiting: not explained", "5.00", "6.00", "+1.00")),
        ("All", ("wall time", "600.00", "551.00", "-49.00")),
    ]  # fmt: skip
    assert waits.rows[0].cells == ("all", "90.00", "80.00", "-1.00", "10.00", "1.00", "0", "0")
    assert [row.cells[0] for row in alone.rows[:2]] == [
        "perfectly balanced experts", "no host delay",
    ]  # fmt: skip
    assert order.rows[1].cells == (
        "and perfectly balanced experts", "1,000", "200.00", "16.7%",
    )  # fmt: skip
    assert [row.cells[0] for row in window.rows] == ["rank 0", "rank 1", "mean"] * 2
    assert window.rows[0].cells[1:] == (
        "455.00", "310.00", "80.00", "300.00", "0", "9.00", "55.00", "1,209",
    )  # fmt: skip
    assert phases.rows[0].cells == ("prefill", "64", "410.00", "123.00", "533.00")


def test_a_page_of_a_comparison_without_a_verdict() -> None:
    plain = replace(comparison(), verdict=())
    assert report_page(plain, PAIR).lead == ()
    assert report_page(plain, PAIR).tables == report_page(comparison(), PAIR).tables


def test_pictures_without_data_are_named() -> None:
    without = (replace(PAIR[0], layers=()), replace(PAIR[1], layers=()))
    page = render(report_page(comparison(), without), "html")
    assert "Not drawn, because the traces do not hold what it needs: MoE time by layer" in page
    assert "<h2>MoE time by layer and rank</h2>" not in page


def test_the_json_can_be_loaded_as_a_comparison(report: Document) -> None:
    data = json.loads(render(report, "json"))
    assert Comparison.from_dict(data).metric("cv").candidate == 6.14
    assert data["portraits"][1]["label"] == "EPLB ON"


def test_the_same_input_gives_the_same_page(report: Document) -> None:
    assert render(report, "html") == render(report_page(comparison(), PAIR), "html")


def test_another_process_gives_the_same_page() -> None:
    """Hashes of texts differ from process to process, and plotly goes through sets of them."""
    page = (
        "import hashlib; from tests.reports.test_report import *; "
        "print(hashlib.md5(render(report_page(comparison(), PAIR), 'html').encode()).hexdigest())"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", page],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(seen) == 1


@pytest.mark.parametrize("name", TEXT_FORMATS)
def test_the_lead_comes_first(report: Document, name: str) -> None:
    text = render(report, name)
    first, table = text.find("EPLB made MoE more balanced"), text.find("Table 1")
    if name in {"csv", "json"}:
        assert first == -1 or "verdict" in text[:first]
    else:
        assert 0 <= first < table
        assert all(text.find(sentence[:20]) < table for sentence in report.lead)


def test_a_document_without_a_lead_begins_with_its_table() -> None:
    assert render(timeline_page(PAIR[0]), "table").startswith("Step 17 (slowest) of EPLB OFF\n")
    assert '<section class="lead">' not in render(timeline_page(PAIR[0]), "html")


def test_pictures_as_files_are_named_as_their_captions(
    report: Document, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lots = iter(f"{number:06x}" for number in range(10, 99))

    def drawn(figures: list[Any], kind: str, **_: Any) -> list[bytes]:
        return [picture(figure, kind) for figure in figures]

    def picture(figure: Any, kind: str) -> bytes:
        assert [trace.uid for trace in figure.data] == [str(n) for n in range(len(figure.data))]
        lot = next(lots)
        names = f'<defs id="defs-{lot}"/><b id="clip{lot}x"/><g clip-path="url(#clip{lot}x)"/>'
        return f"{kind} of {len(figure.data)} traces {names} {lot}".encode()

    monkeypatch.setattr("nsysmoe.reports.static.draw", drawn)
    empty = Picture("Nothing to draw", lambda: None)
    page = replace(report, pictures=(*report.pictures, empty))
    written = write_pictures(page, tmp_path, "svg")
    names = [path.name for path in written]
    assert names[:2] == ["changes-of-table-1.svg", "from-one-wall-time-to-the-other.svg"]
    assert "one-step-kernel-by-kernel.svg" in names
    assert len(set(names)) == len(report.pictures)
    assert all(path.read_text().startswith("svg of ") for path in written)
    # plotly names parts of each picture by lot; numbers in it stay.
    assert written[0].read_text().endswith('id="cliplotx"/><g clip-path="url(#cliplotx)"/> 00000a')
    with pytest.raises(OutputError, match="cannot be written"):
        write_pictures(page, tmp_path / "missing", "svg")


def test_a_hostile_lead_is_escaped(report: Document) -> None:
    led = replace(report, lead=(HOSTILE, HOSTILE))
    assert "<script>alert" not in render(led, "html")
    assert "<script>" not in render(led, "markdown")
    for name in ("table", "markdown", "latex", "html"):
        assert "\u202e" not in re.sub(
            r"<script.*?</script>", "", render(led, name), flags=re.DOTALL
        )


def test_a_timeline_sums_up_and_records_each_kernel() -> None:
    page = timeline_page(PAIR[0])
    assert page.tables[0].rows[0].cells[:4] == ("0", "moe", "16", "2.35")
    rows = list(csv.DictReader(io.StringIO(render(page, "csv"))))
    assert len(rows) == len(PAIR[0].timeline)
    assert int(rows[0]["dur_ns"]) == PAIR[0].timeline[0]["dur_ns"]
    assert json.loads(render(page, "json"))["step"] == 17
    assert len(page.pictures) == 1


def test_a_timeline_of_nothing() -> None:
    page = timeline_page(Portrait("empty", "empty.sqlite"))
    assert render(page, "csv").startswith("Rank,")
    assert "plotly" not in render(page, "html").partition("</style>")[2]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The report of two runs that are hostile throughout, after its scripts ran."""
    if CHROMIUM is None:
        pytest.skip("needs Debian's package chromium")
    folder = tmp_path_factory.mktemp("report")
    page = folder / "report.html"
    pair = (hostile(PAIR[0]), hostile(PAIR[1]))
    page.write_text(render(report_page(comparison(HOSTILE, HOSTILE), pair), "html"), "utf-8")
    return opened_in_chromium(page, folder / "profile")


def test_all_pictures_are_drawn(opened: tuple[str, str]) -> None:
    dom, _ = opened
    assert len(re.findall(r'class="plotly-graph-div js-plotly-plot"', dom)) == len(CAPTIONS)
    kernels = 2 * len(PAIR[0].timeline)
    timeline = dom.partition(f'id="picture-{len(CAPTIONS)}"')[2]
    assert timeline.count('class="point"') == kernels


def test_the_numbers_of_table_1_are_there(opened: tuple[str, str]) -> None:
    assert re.search(r"102,664</td>\s*<td[^>]*>108,419", opened[0])


def test_the_browser_logs_nothing_and_asks_nobody(opened: tuple[str, str]) -> None:
    dom, log = opened
    assert "CONSOLE" not in log, log
    assert "Refused to" not in log
    page = re.sub(r"<script.*?</script>", "", dom, flags=re.DOTALL)
    assert not re.search(r"(?:src|href)=[\"'](?!data:|#)", page)


def test_hostile_names_stay_text_in_the_browser(opened: tuple[str, str]) -> None:
    page = re.sub(r"<script type=\"text/javascript\">.*?</script>", "", opened[0], flags=re.DOTALL)
    assert "<script>alert" not in page
    assert "<b>bold" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "\u202e" not in page
