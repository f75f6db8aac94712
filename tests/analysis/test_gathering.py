"""Runs of several files: the same answers as of the one file that they were cut from."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

import nsysmoe
from fixtures.split import Clock, split
from nsysmoe.analysis.comparing.compare import compare_arms
from nsysmoe.analysis.comparing.comparison import Comparison
from nsysmoe.analysis.comparing.gates import Gate, failures
from nsysmoe.analysis.one_trace.info import describe
from nsysmoe.analysis.one_trace.structure import collectives, imbalance, phases
from nsysmoe.analysis.one_trace.summary import summarize
from nsysmoe.analysis.one_trace.waits import waits
from nsysmoe.analysis.reading.arm import read_arm
from nsysmoe.analysis.reading.gathering import Gathering, gathered, only_run
from nsysmoe.cli import main
from nsysmoe.errors import InputError, QueryError
from nsysmoe.metrics.kernel_time.causes import ACROSS_CLOCKS
from nsysmoe.metrics.kernel_time.waits import CAUSES
from tests.conftest import DP2, FOUR_GPUS, GRAPHS, PAIRS
from tests.export.parquet import write_parquetdir
from tests.hardware import on_hardware_128

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import polars as pl

    from nsysmoe.analysis.reading.arm import Arm
    from nsysmoe.trace import Trace

VIEWS = (
    "kernel_classes", "moe_launches", "moe_cells", "moe_cell_places", "matched_collectives",
    "collective_steps", "device_time", "steps", "rearrangements", "code_loads", "host_gaps",
    "device_steps", "wait_ledger", "idle_gaps", "idle_causes", "silent_gaps", "clocks",
    "graph_launches", "devices", "processes",
)  # fmt: skip
WHOLE = {
    "dp2": DP2 / "eplb_on.sqlite",
    "graphs": GRAPHS / "eplb_on.sqlite",
    "groups": FOUR_GPUS,
}
# Offsets of UTC by milliseconds, drifts of a bad oscillator.
CLOCKS = [
    Clock(),
    Clock(5_000_000, 3_700_000, 20.0),
    Clock(-7_000_000, -900_000, -35.0),
    Clock(3, 40_000),
]
HOSTS = ["n1", "n2", "n10", "n10"]
# What is read of each file by itself is kept for the tests after it; runs of several are not.
pytestmark = pytest.mark.usefixtures("settled")


@pytest.fixture(scope="module", params=WHOLE)
def whole(request: pytest.FixtureRequest) -> Path:
    return WHOLE[request.param]


@pytest.fixture(scope="module")
def apart(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file a process, of one host and one clock."""
    return cut(whole, tmp_path_factory.mktemp("apart"))


@pytest.fixture(scope="module")
def shifted(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of several hosts, whose clocks differ."""
    return cut(whole, tmp_path_factory.mktemp("shifted"), hosts=HOSTS, clocks=CLOCKS)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two processes of the real trace, of one host and one clock."""
    return cut(WHOLE["dp2"], tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of two hosts, whose clocks differ."""
    return cut(WHOLE["dp2"], tmp_path_factory.mktemp("hosts"), hosts=HOSTS, clocks=CLOCKS)


@pytest.fixture(scope="module")
def namesakes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of two hosts, where both processes have one number."""
    return cut(WHOLE["dp2"], tmp_path_factory.mktemp("namesakes"), hosts=HOSTS, pid=77)


@pytest.fixture(scope="module")
def across(shifted: Path) -> Iterator[Trace]:
    """The files of several hosts, put together once."""
    with only_run(shifted).opened() as merged:
        yield merged


def cut(source: Path, folder: Path, **options: Any) -> Path:
    folder.mkdir(exist_ok=True)
    ranks = 4 if source == FOUR_GPUS else 2
    # Names in another order than ranks.
    names = ["z", "x", "y", "a"][:ranks]
    options = {
        key: value[:ranks] if isinstance(value, list) else value for key, value in options.items()
    }
    split(source, [folder / f"{name}.sqlite" for name in names], **options)
    return folder


def with_graphs(path: Path, launches: int) -> None:
    """Add launches of CUDA graphs that were recorded as a whole, of the file's first kernel."""
    with closing(sqlite3.connect(path)) as database:
        database.execute(
            "create table CUPTI_ACTIVITY_KIND_GRAPH_TRACE as select start, end, deviceId, "
            "contextId, streamId, correlationId, globalPid, 1 as graphId, 2 as graphExecId "
            "from CUPTI_ACTIVITY_KIND_KERNEL order by start limit ?",
            [launches],
        )
        database.commit()


def rows(frame: pl.DataFrame) -> list[tuple[Any, ...]]:
    kept = frame.select(name for name in frame.columns if "kernel_id" not in name)
    return kept.sort(kept.columns, nulls_last=True).rows()


def test_files_of_hardware_whose_ids_are_negative_numbers(tmp_path: Path) -> None:
    source = DP2 / "eplb_on.sqlite"
    for name, hosts in (("one", ["n1", "n1"]), ("two", ["n1", "n2"])):
        low = cut(source, tmp_path / f"{name}-low", hosts=hosts)
        high = cut(source, tmp_path / f"{name}-high", hosts=hosts)
        for path in high.glob("*.sqlite"):
            on_hardware_128(path)
        with only_run(low).opened() as known, only_run(high).opened() as found:
            views = ("moe_launches", "host_gaps", "devices")
            for merged in (known, found):
                merged.read_ahead(*((view, None) for view in views))
            for view in views:
                there, expected = found.frame(view), known.frame(view)
                # One host keeps what nsys wrote, several are numbered.
                if name == "one":
                    ids = [name for name in there.columns if name in {"global_pid", "global_tid"}]
                    there = there.with_columns(
                        there[column] + (1 << 62) + (1 << 62) for column in ids
                    )
                assert rows(there) == rows(expected), (name, view)


def test_files_of_one_clock_say_what_the_whole_says_to_the_bit(whole: Path, apart: Path) -> None:
    run = only_run(apart)
    assert len(run.members) in {2, 4}
    with run.opened() as merged, nsysmoe.open(whole) as single:
        merged.read_ahead(*((view, None) for view in VIEWS))
        for view in VIEWS:
            assert rows(merged.frame(view)) == rows(single.frame(view)), view


def test_shifted_clocks_change_no_count_and_no_duration(whole: Path, across: Trace) -> None:
    keep = {
        "kernel_classes": ("name", "launches", "total_ns"),
        "moe_launches": ("device_id", "ordinal", "step", "phase", "layer", "gemm", "dur_ns"),
        "moe_cells": ("cell", "ranks", "slowest_ns", "mean_ns", "slowest_rank"),
        "matched_collectives": ("device_id", "function", "communicator", "ordinal", "is_matched",
                                "ranks", "dur_ns"),
        "device_time": ("device_id", "step", "phase", "moe_ns", "compute_ns"),
    }  # fmt: skip
    with nsysmoe.open(whole) as single:
        across.read_ahead(*keep.items())
        for view, columns in keep.items():
            found, known = across.frame(view, columns), single.frame(view, columns)
            if view == "device_time":
                # Where kernels overlap, a drift moves their edges by a few ns.
                sums = ["moe_ns", "compute_ns"]
                assert found[sums].sum().row(0) == pytest.approx(known[sums].sum().row(0), rel=1e-6)
                found, known = found.drop(sums), known.drop(sums)
            assert rows(found) == rows(known), view


def test_waits_are_right_to_the_residual(whole: Path, across: Trace) -> None:
    key = ["device_id", "function", "communicator", "ordinal"]
    columns = (*key, "is_matched", "wait_ns", "transfer_ns")
    with nsysmoe.open(whole) as single:
        known = single.frame("matched_collectives", columns)
    found = across.frame("matched_collectives", columns)
    residual = max(clock.residual_ns or 0.0 for clock in across.file_clocks)
    assert all(clock.is_applied for clock in across.file_clocks[1:])
    both = found.filter("is_matched").join(known, on=key, suffix="_known", nulls_equal=True)
    assert both.height == known["is_matched"].sum()
    for name in ("wait_ns", "transfer_ns"):
        off = (both[name] - both[f"{name}_known"]).abs()
        # Clocks of two ranks are each right to the residual.
        assert off.quantile(0.95) <= 2 * residual
        assert off.max() <= 3 * residual


def test_the_offset_that_was_put_in_is_found(tmp_path: Path) -> None:
    cut(WHOLE["graphs"], tmp_path, hosts=HOSTS, clocks=CLOCKS)
    with only_run(tmp_path).opened() as merged:
        (_, second) = merged.file_clocks
    put_in = CLOCKS[1].wrong_ns + CLOCKS[1].drift_ppm / 1e6 * second.zero_ns
    assert second.offset_ns == pytest.approx(put_in, abs=second.residual_ns)


ANSWERS: dict[str, Callable[..., Any]] = {
    "collectives": lambda path: collectives(path).rows,
    "by communicator": lambda path: collectives(path, "communicator").rows,
    "imbalance": lambda path: imbalance(path, "layer").rows,
    "phases": lambda path: phases(path).rows,
    "waits": lambda path: [(one.whole, one.phases, one.rows) for one in [waits(path, "rank")]],
    "summary": lambda path: [(one.metrics, one.devices) for one in [summarize(path)]],
    "compare": lambda path: nsysmoe.compare(DP2 / "eplb_off.sqlite", path).metrics,
}


@pytest.mark.parametrize("question", ANSWERS)
def test_every_answer_is_that_of_the_whole(question: str, pair: Path) -> None:
    assert ANSWERS[question](pair) == ANSWERS[question](WHOLE["dp2"])


def test_folders_of_parquet_are_files_of_a_run_too(pair: Path, tmp_path: Path) -> None:
    for file in pair.iterdir():
        write_parquetdir(file, tmp_path / f"{file.stem}_pqtdir")
    assert len(only_run(tmp_path).members) == 2
    assert waits(tmp_path, "rank").rows == waits(pair, "rank").rows


def test_file_names_and_their_order_mean_nothing(hosts: Path, tmp_path: Path) -> None:
    for name, other in (("x", "later"), ("z", "early")):
        shutil.copy(hosts / f"{name}.sqlite", tmp_path / f"{other}.sqlite")
    assert collectives(hosts).rows == collectives(tmp_path).rows
    backwards = [tmp_path / "later.sqlite", tmp_path / "early.sqlite"]
    assert waits(backwards, "rank").rows == waits(hosts, "rank").rows


def test_one_process_id_on_two_hosts_stays_two(namesakes: Path) -> None:
    found = summarize(namesakes)
    assert [(one.host, one.process) for one in found.devices] == [("n1", 77), ("n2", 77)]
    known = summarize(WHOLE["dp2"])
    assert [one.metrics for one in found.devices] == [one.metrics for one in known.devices]
    late = waits(namesakes, "rank").rows
    assert all(sum(row[cause] for cause in CAUSES) == row["wait_ns"] for row in late)
    assert CliRunner().invoke(main, ["waits", str(namesakes), "--by", "rank"]).exit_code == 0
    assert {(row["late_host"], row["late_process"]) for row in late} == {("n1", 77), ("n2", 77)}
    assert {row["host"] for row in collectives(namesakes).rows} == {"n1", "n2"}
    told = describe(namesakes)
    assert [(row["host"], row["process_id"]) for row in told.devices] == [("n1", 77), ("n2", 77)]
    assert [row["residual_ns"] is not None for row in told.files] == [True, True]


def test_every_process_of_every_view_is_told_by_its_host(namesakes: Path) -> None:
    """Processes with one id on two hosts, wherever a view names one: whoever was late, too."""
    with only_run(namesakes).opened() as merged:
        merged.read_ahead(*((view, None) for view in VIEWS))
        known = set(merged.frame("devices")["global_pid"])
        assert len(known) == 2
        for view in VIEWS:
            frame = merged.frame(view)
            for name in (name for name in frame.columns if name.endswith("global_pid")):
                assert set(frame[name].drop_nulls()) <= known, (view, name)
        ledger = merged.frame("wait_ledger")
        met = merged.frame("matched_collectives", ("kernel_id", "global_pid", "device_id"))
    assert set(ledger["late_global_pid"]) == known
    late = ledger.join(met, left_on="late_kernel_id", right_on="kernel_id", suffix="_met")
    assert late.height == ledger.height > 0
    assert late["late_global_pid"].to_list() == late["global_pid_met"].to_list()
    assert late["late_device_id"].to_list() == late["device_id_met"].to_list()


def test_row_numbers_of_several_files_are_one_numbering(tmp_path: Path) -> None:
    """Launches of whole graphs: each file numbers its own from 1."""
    cut(WHOLE["dp2"], tmp_path, hosts=HOSTS)
    for path in tmp_path.glob("*.sqlite"):
        with_graphs(path, 3)
    with only_run(tmp_path).opened() as merged:
        launches = merged.frame("graph_launches")
    assert launches.height == 6
    assert launches["graph_launch_id"].n_unique() == 6


def test_skews_below_the_residual_are_no_evidence(hosts: Path) -> None:
    findings = {finding.code: finding for finding in collectives(hosts).findings}
    residual = findings["clocks_of_files"].evidence["residual_ns"]
    assert f"{residual / 1e3:,.1f} us" in findings["clocks_of_files"].message
    assert findings["last_to_arrive"].evidence["residual_ns"] >= residual
    unsure = findings["waits_below_residual"].evidence
    assert unsure["residual_ns"] >= residual
    assert unsure["waits"] > 0


def test_no_total_of_waiting_is_off_by_more_than_is_said(whole: Path, shifted: Path) -> None:
    """Against the whole file, in which one clock told all arrivals and ends."""
    known, found = (collectives(path).rows for path in (whole, shifted))
    key = ("collective", "device")
    right = {tuple(row[name] for name in key): row for row in known}
    assert len(found) == len(right)
    for row in found:
        for what in ("wait", "transfer"):
            off = abs(row[f"{what}_ns"] - right[tuple(row[name] for name in key)][f"{what}_ns"])
            assert off <= row[f"{what}_uncertainty_ns"]
    assert not any(key.endswith("uncertainty_ns") for row in known for key in row)


def test_totals_of_waiting_are_told_with_what_clocks_agree_to(shifted: Path) -> None:
    found = waits(shifted, "phase")
    unsure = found.whole["wait_uncertainty_ns"]
    assert 0 < unsure < found.whole["wait_ns"]
    (said,) = [one for one in found.findings if one.code == "waiting_uncertainty"]
    assert said.evidence["wait_uncertainty_ns"] == unsure
    assert sum(row["wait_uncertainty_ns"] for row in found.rows) >= unsure


def test_what_clocks_agree_to_is_printed(hosts: Path) -> None:
    printed = [
        CliRunner().invoke(main, [*asked, str(hosts)]).stdout
        for asked in (["waits"], ["waits", "--by", "rank"], ["collectives"])
    ]
    assert "± what clocks of the files agree to" in printed[0]
    assert "± clocks (ms)" in printed[1]
    assert printed[2].count("± clocks") == 2


def read(path: Path) -> Arm:
    return read_arm(path.name, [only_run(path)], is_quick=False)


def test_a_change_of_waiting_that_clocks_cannot_tell_is_noise(tmp_path: Path) -> None:
    arms = []
    for side in ("off", "on"):
        whole = PAIRS / side / "run-1" / "trace.sqlite"
        arms.append(cut(whole, tmp_path / side, hosts=HOSTS, clocks=CLOCKS))
    before, after = (read(path) for path in arms)
    found = compare_arms(before, after)
    sure_off, sure_on = (read(PAIRS / side / "run-1") for side in ("off", "on"))
    sure = compare_arms(sure_off, sure_on)
    for key in ("wait_ns", "exposed_wait_ns"):
        change = found.metric(key)
        # On one clock the same change is beyond noise.
        assert sure.metric(key).verdict == "better"
        assert sure.metric(key).uncertainty_ns is None
        assert change.interval is not None
        assert change.interval.excludes_zero()
        assert change.uncertainty_ns is not None
        assert abs((change.candidate or 0) - (change.baseline or 0)) < change.uncertainty_ns
        assert change.verdict == "within_noise"
    assert found.metric("critical_moe_ns").uncertainty_ns is None
    exposed = {
        f"exposed_{what}_ns": found.metric(f"exposed_{what}_ns") for what in ("wait", "transfer")
    }
    for key, change in exposed.items():
        assert change.uncertainty_ns
        off = [
            abs((getattr(change, arm) or 0) - (getattr(sure.metric(key), arm) or 0))
            for arm in ("baseline", "candidate")
        ]
        assert sum(off) <= change.uncertainty_ns
    assert found.metric("transfer_ns").uncertainty_ns
    assert_causes_say_what_clocks_leave(found, sure)
    (said,) = [one for one in found.findings if one.code == "waiting_uncertainty"]
    assert said.evidence["limit_ns"] == found.metric("wait_ns").uncertainty_ns
    gates = [Gate("wait_ns", 1)]
    assert len(failures(compare_arms(sure_on, sure_off), gates)) == 1
    assert failures(compare_arms(after, before), gates) == []
    saved = tmp_path / "saved.json"
    found.save(saved)
    assert Comparison.load(saved) == found
    assert "± clocks (ms)" in CliRunner().invoke(main, ["render", str(saved)]).stdout


def assert_causes_say_what_clocks_leave(found: Comparison, sure: Comparison) -> None:
    assert not any("uncertainty_ns" in row for row in sure.causes)
    unsure = {row["cause"]: row["uncertainty_ns"] for row in found.causes}
    assert {cause for cause, ns in unsure.items() if ns} == set(ACROSS_CLOCKS)
    changes = [{row["cause"]: row["change_ns"] for row in one.causes} for one in (found, sure)]
    waits = [sum(one[cause] for cause in ACROSS_CLOCKS[1:]) for one in changes]
    assert abs(waits[0] - waits[1]) <= unsure["wait_moe"]
    assert abs(changes[0]["transfer"] - changes[1]["transfer"]) <= unsure["transfer"]


def test_copies_in_a_folder_are_runs(tmp_path: Path) -> None:
    for name in ("a", "b"):
        shutil.copy(WHOLE["dp2"], tmp_path / f"{name}.sqlite")
    assert [len(run.members) for run in gathered(tmp_path)] == [0, 0]
    (said,) = gathered(tmp_path)[0].findings
    assert said.code == "files_of_several_runs"
    with pytest.raises(InputError, match="cannot be one run: both hold process"):
        gathered(tmp_path, Gathering("one-run"))
    with pytest.raises(InputError, match="holds 2 runs; name one"):
        collectives(tmp_path)


def test_files_are_read_as_they_are_said_to_be(pair: Path) -> None:
    assert len(gathered(pair, Gathering("runs"))) == 2
    assert len(gathered(pair, Gathering("one-run"))) == 1


def test_what_parts_do_not_hold_is_refused(pair: Path) -> None:
    with only_run(pair).opened() as merged, pytest.raises(QueryError, match="one of its files"):
        merged.frame("kernels")


def test_the_reading_is_printed_and_can_be_said(hosts: Path) -> None:
    told = CliRunner().invoke(main, ["summary", str(hosts)])
    assert told.exit_code == 0, told.output
    assert "2 files read as one run of 2 ranks on 2 hosts" in " ".join(told.stdout.split())
    runs = CliRunner().invoke(main, ["summary", str(hosts), "--runs", "--format", "json"])
    assert {"one_of_runs"} <= {row["code"] for row in json.loads(runs.stdout)["findings"]}
    wrong = CliRunner().invoke(main, ["summary", str(hosts), "--ray-address", "auto"])
    assert wrong.exit_code == 2
    assert "--ray-address is for --engine ray" in wrong.stderr


def test_a_scratch_folder_that_cannot_be_written_is_named(pair: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(InputError, match="name another folder with --scratch"),
        only_run(pair, Gathering(scratch=tmp_path / "file" / "x")).opened(),
    ):
        pass
