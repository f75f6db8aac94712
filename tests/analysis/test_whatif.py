"""`whatif` and `bound` as people and scripts meet them, and what `compare` says of causes."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import nsysmoe
from fixtures.builder import TraceBuilder
from nsysmoe.analysis.comparing.comparison import Comparison
from nsysmoe.analysis.one_trace import whatif as whatif_module
from nsysmoe.analysis.one_trace.bound import bound
from nsysmoe.analysis.one_trace.whatif import REMOVALS, Change, whatif
from nsysmoe.metrics.kernel_time.causes import BOUNDS, TIME_CAUSES
from nsysmoe.reports import Document, render
from nsysmoe.reports.formats import FORMATS, encode
from nsysmoe.reports.pages.one_trace.bound import bound_page
from nsysmoe.reports.pages.one_trace.whatif import whatif_page
from tests.cli.test_cli import run
from tests.conftest import DP2, GRAPHS, TABLE1
from tests.metrics.simulator import Costs, Launch, Operation, Simulation, Sync, Think, Thread

Write = Callable[[TraceBuilder], Path]
US, MS = 1_000, 1_000_000
MOE, NORM = "fused_moe_kernel", "rms_norm_kernel"
REDUCE = "ncclDevKernel_AllReduce_Sum_bf16_RING_LL(x)"
KEYS = {"traced_ns", "replayed_ns", "replay_error", "whatif_ns", "saved_ns", "phases"}
FIXTURES = [*sorted(GRAPHS.glob("*.sqlite")), *sorted(DP2.glob("*.sqlite"))]


def two_ranks(*, cells: bool = True) -> list[Thread]:
    """Six rounds: MoE of 40 and 60 us turn about, late launches, an all-reduce; no waiting host."""
    programs: list[list[Operation]] = [[], []]
    for number in range(6):
        for rank, program in enumerate(programs):
            slow = (number + rank) % 2
            program += [
                Launch(NORM, 20 * US),
                Launch(MOE, (40 + 20 * slow) * US),
                Launch(MOE, 10 * US),
                Launch(REDUCE, 8 * US, meeting=number),
                Think((30 + 70 * rank) * US),
            ]
    if not cells:
        programs[1].append(Launch(MOE, 5 * US))
    return [Thread(rank, program) for rank, program in enumerate(programs)]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Simulation(two_ranks()).builder().write(tmp_path_factory.mktemp("w") / "two.sqlite")


def truth(costs: Costs, threads: list[Thread] | None = None) -> float:
    """Return the true wall time of the rank that takes longest in the trace as it was."""
    walls = []
    for changed in (Costs(), costs):
        times = Simulation(threads or two_ranks(), changed).times()
        walls.append([
            max(end for (rank, _), (_, end) in times.items() if rank == one)
            - min(start for (rank, _), (start, _) in times.items() if rank == one)
            for one in (0, 1)
        ])  # fmt: skip
    before, after = walls
    return after[before.index(max(before))]


def first_starts() -> dict[tuple[int, int], float]:
    return Simulation(two_ranks()).firsts()


MEANS = {
    (rank, 4 * number + 1): 50.0 * US for rank in (0, 1) for number in range(6)
}  # fmt: skip
CHANGES = {
    "balanced": (Change(balanced_moe=True), Costs(mean_of=MEANS)),
    "no host delay": (Change(no_host_delay=True), Costs(first=first_starts())),
    "free transfer": (Change(free_transfer=True), Costs(transfer=0)),
    "slower": (
        Change(no_stalls=True, scale=(("fused_*", 3.0), ("nccl*AllReduce*", 0.5))),
        Costs(scale={MOE: 3}, transfer=0.5),
    ),
    "faster twice": (Change(scale=((MOE, 0.5), ("fused*", 0.5))), Costs(scale={MOE: 0.25})),
    "balanced without host": (
        Change(balanced_moe=True, no_host_delay=True),
        Costs(mean_of=MEANS, first=first_starts()),
    ),
    "balanced and faster": (
        Change(balanced_moe=True, scale=((MOE, 0.5),)),
        Costs(mean_of=MEANS, scale={MOE: 0.5}),
    ),
}


@pytest.mark.parametrize("case", CHANGES)
def test_a_change_gives_the_wall_time_that_the_simulator_gives(path: Path, case: str) -> None:
    change, costs = CHANGES[case]
    found = whatif(path, change)
    assert found.traced_ns == found.replayed_ns == truth(Costs())
    assert found.whatif_ns == pytest.approx(truth(costs), abs=1e-3)
    assert found.saved_ns == found.replayed_ns - found.whatif_ns
    assert found.alone == found.order == ()
    assert sum(row["whatif_ns"] for row in found.phases.values()) == pytest.approx(found.whatif_ns)


def test_without_a_change_each_removal_alone_and_all_in_order(path: Path) -> None:
    found = whatif(path)
    assert [row["change"] for row in found.alone] == [[name] for name in REMOVALS]
    for row in found.alone[:2]:
        single = whatif(path, replace(Change(), **{row["change"][0]: True}))  # type: ignore[arg-type]
        assert row["whatif_ns"] == single.whatif_ns
        assert row["saved_ns"] == single.saved_ns
    assert [len(row["change"]) for row in found.order] == [1, 2, 3, 4]
    assert {row["added"] for row in found.order} == set(REMOVALS)
    assert found.order[0]["saved_ns"] == max(row["saved_ns"] for row in found.alone)
    everything = Change(balanced_moe=True, no_host_delay=True, free_transfer=True, no_stalls=True)
    assert found.order[-1]["whatif_ns"] == whatif(path, everything).whatif_ns
    assert (found.whatif_ns, found.saved_ns) == (found.replayed_ns, 0)


def test_memory_is_told_where_a_replay_takes_much(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    whatif(path, tell=told.append)
    assert told == []
    monkeypatch.setattr(whatif_module, "MOST_BYTES", 500_000_000)
    whatif(path, tell=told.append)
    (note,) = told
    assert note.endswith("takes about 0.5 GB of memory, which --memory-limit does not bound")
    assert "of memory" not in run("whatif", path, "--quiet").stderr
    assert note in run("whatif", path).stderr


# --- JSON and other formats -----------------------------------------------------------------------


@pytest.mark.parametrize("options", [
    (), ("--free-transfer", "--no-stalls", "--scale", "fused_*=1", "--scale", "*=2"),
])  # fmt: skip
def test_the_json_has_the_promised_keys(path: Path, options: tuple[str, ...]) -> None:
    found = json.loads(run("whatif", path, *options, "--format", "json").stdout)
    assert found.keys() >= KEYS
    for key in ("traced_ns", "replayed_ns", "whatif_ns", "saved_ns"):
        assert sum(row[key] for row in found["phases"].values()) == pytest.approx(found[key])
    assert found["saved_ns"] == found["replayed_ns"] - found["whatif_ns"]
    assert found["replay_error"] == found["replayed_ns"] / found["traced_ns"] - 1 == 0
    assert bool(found["alone"]) is bool(found["order"]) is (not options)


@pytest.mark.parametrize("file", FIXTURES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_cut_traces_replay_as_they_were(file: Path) -> None:
    found = json.loads(run("whatif", file, "--format", "json").stdout)
    assert found["replay_error"] == pytest.approx(0, abs=1e-9)
    for row in found["phases"].values():
        assert row["replayed_ns"] == pytest.approx(row["traced_ns"], abs=1)
    walls = [found["replayed_ns"], *(row["whatif_ns"] for row in found["order"])]
    assert all(later <= earlier + 1 for earlier, later in pairwise(walls))
    assert all(row["saved_ns"] >= -1 for row in found["alone"] if row["change"] != ["balanced_moe"])


PAGES = ("whatif", "whatif --no-host-delay", "bound", "bound --by rank")


@pytest.fixture(scope="module")
def pages(path: Path) -> dict[str, Document]:
    return {
        "whatif": whatif_page(whatif(path)),
        "whatif --no-host-delay": whatif_page(whatif(path, Change(no_host_delay=True))),
        "bound": bound_page(bound(path)),
        "bound --by rank": bound_page(bound(path, "rank")),
    }


@pytest.mark.parametrize("page", PAGES)
def test_every_format(pages: dict[str, Document], path: Path, tmp_path: Path, page: str) -> None:
    name, *options = page.split()
    for format_ in FORMATS:
        assert len(encode(pages[page], format_)) > 100
    output = tmp_path / "out.json"
    assert run(name, path, *options, "-o", output).exit_code == 0
    assert output.read_text("utf-8") == render(pages[page], "json")


def test_an_input_is_not_overwritten(path: Path) -> None:
    before = path.read_bytes()
    assert run("whatif", path, "--format", "json", "-o", path).exit_code != 0
    assert path.read_bytes() == before


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_csv_holds_what_json_does(path: Path) -> None:
    whole = json.loads(run("whatif", path, "--format", "json").stdout)
    rows = table(run("whatif", path, "--format", "csv").stdout)
    assert [row["kind"] for row in rows] == ["alone"] * 4 + ["order"] * 4
    assert float(rows[-1]["whatif_ns"]) == pytest.approx(whole["order"][-1]["whatif_ns"])
    by_phase = table(run("whatif", path, "--free-transfer", "--format", "csv").stdout)
    assert {row["phase"] for row in by_phase} == set(whole["phases"])


# --- what is refused ------------------------------------------------------------------------------


def line(*arguments: str | Path, code: int = 1) -> str:
    found = run(*arguments)
    assert found.exit_code == code
    assert found.stdout == ""
    assert "defect" not in found.stderr
    if code == 1:
        assert found.stderr.count("\n") == 1
    return found.stderr


def test_a_kernel_that_did_not_run(path: Path) -> None:
    assert "ran no kernel nope_*" in line("whatif", path, "--scale", "nope_*=0.5")
    # By case.
    assert "ran no kernel FUSED*" in line("whatif", path, "--scale", "FUSED*=0.5")


@pytest.mark.parametrize(
    "text", ["fused_moe_kernel", "fused_moe_kernel=", "=0.5", "a=b", "a=-1", "a=nan", "a=inf", ""]
)
def test_a_factor_that_is_none(path: Path, text: str) -> None:
    assert "is not KERNEL=FACTOR" in line("whatif", path, "--scale", text, code=2)


def test_balance_where_cells_cannot_be_paired(tmp_path: Path) -> None:
    file = Simulation(two_ranks(cells=False)).builder().write(tmp_path / "t.sqlite")
    assert "cannot be paired" in line("whatif", file, "--balanced-moe")
    found = json.loads(run("whatif", file, "--format", "json").stdout)
    assert [row["change"] for row in found["alone"]] == [[name] for name in REMOVALS[1:]]
    assert found["order"][-1]["change"] == list(REMOVALS[1:])


@pytest.mark.parametrize("command", ["whatif", "bound"])
def test_a_file_that_holds_nothing_to_split_gives_one_line(command: str, written: Write) -> None:
    cpu_only = written(TraceBuilder().range("step", 0, 50).call(5, 5, correlation=1))
    assert "no GPU kernels" in line(command, cpu_only)
    assert "no GPU kernels" in line(command, written(TraceBuilder().copy(0, 5)))
    assert "graph" in line(command, written(TraceBuilder().graph(0, 5)))
    assert "is a table, not a trace" in line(command, TABLE1 / "eplb_off.csv")
    assert "its kernels took none" in line(command, written(TraceBuilder().kernel(MOE, 7, 0)))


@pytest.mark.parametrize("pid", [1000, None])
def test_a_trace_of_kernels_alone(written: Write, pid: int | None) -> None:
    """No API calls, in old exports no processes: gaps stay, and nobody knows whose they are."""
    build = TraceBuilder()
    for number in range(4):
        build.kernel(MOE, 100 * US * number, 60 * US, pid=pid, device=0)
    file = written(build)
    found = whatif(file)
    assert (found.traced_ns, found.replayed_ns) == (360 * US, 360 * US)
    assert {row["saved_ns"] for row in found.alone} == {0}
    if pid is None:
        assert whatif(file, Change(scale=((MOE, 0.5),))).whatif_ns == 240 * US
        return
    (row,) = bound(file).rows
    assert row["bound"] == "moe"
    assert row["causes"]["unknown_launch"] == 120 * US


def test_ranks_on_clocks_that_are_off_replay_as_they_were(written: Write) -> None:
    """Two hosts, 5 ms apart by their clocks: their all-reduces are matched all the same."""
    build = TraceBuilder()
    for number in range(24):
        for device, pid in ((0, 1000), (1, 2000)):
            at = number * MS + device * 5 * MS
            late = number % 5 * 2 * US * device
            build.kernel(NORM, at, 20 * US + late, device=device, pid=pid)
            build.kernel(REDUCE, at + 21 * US + late, 29 * US - late, device=device, pid=pid)
    file = written(build)
    with nsysmoe.open(file) as trace:
        assert trace.frame("matched_collectives")["is_matched"].all()
        assert trace.frame("clocks")["is_applied"].any()
    found = whatif(file, Change(free_transfer=True))
    assert found.replay_error == 0
    # The last arrives 0 to 8 us after 21; all leave at 50.
    transfers = [29 * US - number % 5 * 2 * US for number in range(24)]
    assert found.saved_ns == pytest.approx(sum(transfers), abs=50)


# --- a wait that the trace did not need -----------------------------------------------------------


def test_a_wait_that_begins_to_wait_where_the_host_comes_sooner(tmp_path: Path) -> None:
    """Rank 0's second wait finds its work done, since thinking took longer.

    With shorter kernels rank 0 comes sooner to it, but the all-reduce ends no sooner: rank 1 is
    launched late. The next launch has to wait for that.
    """
    short: list[Operation] = [
        Launch("k", 20 * US), Launch("k", 20 * US), Launch("long", 400 * US), Sync(),
        Launch(REDUCE, 10 * US, meeting=0), Think(60 * US), Sync(), Think(5 * US),
        Launch("k", 20 * US),
    ]  # fmt: skip
    late: list[Operation] = [
        Launch("k", 20 * US), Launch("k", 20 * US), Think(400 * US),
        Launch(REDUCE, 10 * US, meeting=0),
    ]  # fmt: skip
    threads = [Thread(0, short), Thread(1, late)]
    file = Simulation(threads).builder().write(tmp_path / "t.sqlite")
    found = whatif(file, Change(scale=(("long", 0.1),)))
    assert found.replay_error == 0
    assert found.whatif_ns == pytest.approx(truth(Costs(scale={"long": 0.1}), threads), abs=10)


# --- bound ----------------------------------------------------------------------------------------


def test_bound_by_phase_and_rank_add_up(path: Path) -> None:
    phases = json.loads(run("bound", path, "--format", "json").stdout)
    ranks = json.loads(run("bound", path, "--by", "rank", "--format", "json").stdout)
    assert len(ranks) == 2 * len(phases)
    for row in (*phases, *ranks):
        assert set(row["shares"]) == set(BOUNDS)
        assert set(row["causes"]) == set(TIME_CAUSES)
        assert sum(row["shares"].values()) == pytest.approx(1)
        assert sum(row["causes"].values()) == pytest.approx(row["window_ns"])
        assert row["shares"][row["bound"]] == max(row["shares"].values())
    for row in phases:
        mine = [other for other in ranks if other["phase"] == row["phase"]]
        assert sum(other["window_ns"] for other in mine) == row["window_ns"]
        for cause in TIME_CAUSES:
            total = sum(other["causes"][cause] for other in mine)
            assert total == pytest.approx(row["causes"][cause], abs=1e-3)
    assert {(row["process"], row["device"]) for row in ranks} == {(1000, 0), (1001, 1)}


def test_a_host_that_launches_late_bounds(path: Path) -> None:
    """Rank 1 thinks 100 us a round, most of it idle; rank 0 waits for that in the all-reduce."""
    rows = {row["device"]: row for row in bound(path, "rank").rows}
    assert rows[1]["causes"]["host"] > 3 * rows[0]["causes"]["host"]
    assert rows[0]["causes"]["wait_host"] > 30 * US
    assert rows[1]["causes"]["wait_host"] < rows[0]["causes"]["wait_host"]
    assert rows[0]["causes"]["sync"] == rows[1]["causes"]["sync"] == 0


def test_csv_of_bound_is_flat(path: Path) -> None:
    (row,) = table(run("bound", path, "--format", "csv").stdout)
    assert row.keys() >= {f"{name}_ratio" for name in BOUNDS} | {
        f"{name}_ns" for name in TIME_CAUSES
    }
    assert sum(float(row[f"{name}_ratio"]) for name in BOUNDS) == pytest.approx(1)
    assert row["bound"] in BOUNDS


def test_by_says_what_it_can_be(path: Path) -> None:
    assert "'phase', 'rank'" in line("bound", path, "--by", "layer", code=2)


# --- compare --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair() -> Comparison:
    return nsysmoe.compare(GRAPHS / "eplb_off.sqlite", GRAPHS / "eplb_on.sqlite")


def causes_of(found: dict[str, Any], key: str) -> float:
    return float(sum(row[key] for row in found["causes"]))


def test_causes_add_up_to_both_wall_times(pair: Comparison) -> None:
    found = json.loads(json.dumps(pair.to_dict()))
    wall = pair.metric("wall_time_ns")
    assert causes_of(found, "baseline_ns") == pytest.approx(wall.baseline, abs=1)
    assert causes_of(found, "candidate_ns") == pytest.approx(wall.candidate, abs=1)
    assert [row["cause"] for row in found["causes"]] == list(TIME_CAUSES)
    for row in found["causes"]:
        assert row["change_ns"] == row["candidate_ns"] - row["baseline_ns"]


def test_what_bounds_comes_first_and_names_both_arms(pair: Comparison) -> None:
    first = pair.verdict[0]
    assert first.question == "bound"
    assert first.answer in BOUNDS
    assert f"in {pair.candidate.label}" in first.sentence
    assert set(first.evidence) == {"baseline", "candidate"}
    assert pair.verdict[1].question == "overall"


def test_a_saved_comparison_keeps_its_causes_and_an_older_one_has_none(
    pair: Comparison, tmp_path: Path
) -> None:
    saved = tmp_path / "new.json"
    pair.save(saved)
    assert Comparison.load(saved) == pair
    assert "Change of wall time by cause" in run("render", saved).stdout
    older = json.loads(saved.read_text("utf-8"))
    del older["causes"]
    old = tmp_path / "old.json"
    old.write_text(json.dumps(older), "utf-8")
    assert Comparison.load(old).causes == ()
    shown = run("render", old)
    assert shown.exit_code == 0
    assert "Change of wall time by cause" not in shown.stdout


@pytest.mark.parametrize("row", [7, {"cause": 1}, {"cause": "moe"},
                                 *({"cause": "moe", "baseline_ns": 1, "candidate_ns": 1,
                                    "change_ns": 1, "baseline_values": values,
                                    "candidate_values": [1]}
                                   for values in (["1"], [], [1, 2], "1", None)),
                                 {"cause": "moe", "baseline_ns": "1", "candidate_ns": 1,
                                  "change_ns": 1}])  # fmt: skip
def test_causes_that_nobody_saved_are_refused(pair: Comparison, tmp_path: Path, row: Any) -> None:
    values = json.loads(json.dumps(pair.to_dict()))
    values["causes"] = [row]
    broken = tmp_path / "c.json"
    broken.write_text(json.dumps(values), "utf-8")
    assert "defect" not in line("render", broken)


def test_kernels_without_length_compare_all_the_same(written: Write) -> None:
    still = written(TraceBuilder().kernel(MOE, 7, 0))
    found = nsysmoe.compare(still, written(TraceBuilder().kernel(MOE, 0, 5)))
    assert causes_of({"causes": list(found.causes)}, "candidate_ns") == 5
    assert causes_of({"causes": list(found.causes)}, "baseline_ns") == 0
