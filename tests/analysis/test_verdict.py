"""Arms of several runs, intervals, the verdict that leads, gates, and parts."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import cache
from pathlib import Path
from statistics import fmean

import pytest

import nsysmoe
from fixtures.builder import TraceBuilder
from nsysmoe.analysis.comparing.gates import Gate, failures
from nsysmoe.errors import GateError, InputError
from nsysmoe.export.files import runs_of
from nsysmoe.metrics.kernel_time.causes import bound_changes
from nsysmoe.reports.formats import render
from nsysmoe.reports.pages.comparing.comparison import comparison_page
from tests.conftest import GRAPHS, PAIRS, TABLE1

Write = Callable[[TraceBuilder], Path]
REDUCE = "ncclDevKernel_AllReduce_Sum_bf16_RING_LL(x)"
STEPS = 12


def run_of(scale: float, noise: random.Random, *, slow: float = 1.0) -> TraceBuilder:
    """Twelve decode steps of one layer on two ranks; ``slow`` stretches rank 1 alone."""
    build = TraceBuilder()
    for device, pid in ((0, 1000), (1, 2000)):
        for step in range(STEPS):
            at, first = 1_000 + 400_000 * step, 100 * device + 10 * step
            build.range("execute_context_0(0)_generation_8(8)", at - 500, 400, pid=pid)
            for number in range(3):
                build.call(at - 400 + number, 1, pid=pid, correlation=first + number)
            for number in range(2):
                stretch = scale * (slow if device else 1.0) * (1 + 0.01 * noise.uniform(-1, 1))
                build.kernel("fused_moe_kernel", at + number * 150_000, round(100_000 * stretch),
                             device=device, pid=pid, correlation=first + number)  # fmt: skip
            late = 2_000 * device
            build.kernel(REDUCE, at + 300_000 + late, 20_000 - late,
                         device=device, pid=pid, correlation=first + 2)  # fmt: skip
    return build


@pytest.fixture(scope="module")
def written_runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Write a run of some name, number and scale once: the same file for all tests."""
    folder = tmp_path_factory.mktemp("runs")

    @cache
    def write(name: str, number: int, scale: float, **more: float) -> Path:
        noise = random.Random(f"{name}{number}")
        drift = 1 + 0.004 * noise.uniform(-1, 1)
        made = run_of(scale * drift, noise, **more)
        place = folder / f"{name}-{scale}-{more}"
        place.mkdir(exist_ok=True)
        return made.write(place / f"run{number}.sqlite")

    return write


@pytest.fixture
def runs(
    written_runs: Callable[..., Path],
    tmp_path: Path,
    settled: None,  # noqa: ARG001
) -> Callable[..., Path]:
    """Put runs into a folder; what was read of a file by one test is kept for the next."""

    def write(name: str, scale: float, count: int = 5, **more: float) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for number in range(count):
            made = written_runs(name, number, scale, **more)
            (folder / made.name).symlink_to(made)
        return folder

    return write


def sentence(found: nsysmoe.Comparison, question: str) -> str:
    return next(part.answer for part in found.verdict if part.question == question)


def test_five_runs_an_arm_tell_an_effect_from_noise(runs: Callable[..., Path]) -> None:
    found = nsysmoe.compare(runs("off", 1.0), runs("on", 1.05))
    total = found.metric("total_time_ns")
    assert total.interval is not None
    assert (total.interval.over, total.interval.baseline_n) == ("runs", 5)
    assert 0.03 < total.interval.low < 0.05 < total.interval.high < 0.07
    assert total.verdict == "worse"
    assert len(found.baseline.sources) == 5
    assert "single_run" not in [finding.code for finding in found.findings]
    assert sentence(found, "balance") == "worse"


def test_no_effect_is_within_noise(runs: Callable[..., Path]) -> None:
    found = nsysmoe.compare(runs("off", 1.0), runs("same", 1.0), quick=True)
    assert found.metric("total_time_ns").verdict == "within_noise"
    assert found.metric("launches").verdict == "same"
    assert sentence(found, "balance") == "within_noise"


def test_the_value_of_an_arm_is_the_mean_of_its_runs(runs: Callable[..., Path]) -> None:
    folder = runs("off", 1.0, 3)
    alone = [nsysmoe.summarize(path).metrics[0].value for path in runs_of(folder)]
    found = nsysmoe.compare(folder, runs("same", 1.0, 4), quick=True)
    assert found.metric("total_time_ns").baseline == pytest.approx(sum(alone) / 3)  # type: ignore[arg-type]
    assert found.metric("launches").baseline == 4 * STEPS


def test_causes_are_means_over_runs_and_close_on_the_wall_time(
    runs: Callable[..., Path],
) -> None:
    """MoE kernels take 5 % longer, and nothing else changes: the interval tells which is which."""
    found = nsysmoe.compare(runs("off", 1.0), runs("on", 1.05))
    wall = found.metric("wall_time_ns")
    for side, metric in (("baseline", wall.baseline_values), ("candidate", wall.candidate_values)):
        by_run = zip(*(row[f"{side}_values"] for row in found.causes), strict=True)
        assert [sum(run) for run in by_run] == pytest.approx(list(metric))
        for row in found.causes:
            assert row[f"{side}_ns"] == pytest.approx(fmean(row[f"{side}_values"]))
    moe = bound_changes(found.causes)["moe"]
    assert moe.interval_ns is not None
    assert 0 < moe.interval_ns[0] < moe.change_ns < moe.interval_ns[1]
    shown = render(comparison_page(found), "table")
    assert "95% over runs)" in shown


def test_without_wall_time_the_run_shown_is_that_of_median_total(
    runs: Callable[..., Path],
) -> None:
    found = nsysmoe.compare(runs("off", 1.0), runs("on", 1.05), quick=True)
    told = next(part for part in found.findings if part.code == "representative_run")
    assert "median MoE total" in told.message


def test_two_runs_give_no_interval_and_say_so(runs: Callable[..., Path]) -> None:
    found = nsysmoe.compare(runs("off", 1.0, 2), runs("on", 1.05, 5), quick=True)
    assert found.metric("total_time_ns").interval is None
    assert found.metric("total_time_ns").verdict == "worse"
    assert "few_runs" in [finding.code for finding in found.findings]
    assert sentence(found, "balance") == "not_judged"


def test_one_run_an_arm_is_judged_over_steps(runs: Callable[..., Path]) -> None:
    found = nsysmoe.compare(runs("off", 1.0, 1), runs("on", 1.05, 1))
    total = found.metric("total_time_ns")
    assert total.interval is not None
    assert (total.interval.over, total.interval.candidate_n) == ("steps", STEPS)
    assert total.interval.low <= total.change <= total.interval.high  # type: ignore[operator]
    noise = next(part for part in found.verdict if part.question == "noise")
    assert "one run an arm" in noise.sentence
    overall = next(part for part in found.verdict if part.question == "overall")
    assert "by the steps of one run each" in overall.sentence


def test_balance_is_told_apart_from_totals(runs: Callable[..., Path]) -> None:
    """Rank 1 was 40 % slower; balanced, both do 3 % more than the mean: the total is worse."""
    found = nsysmoe.compare(runs("off", 1.0, 3, slow=1.4), runs("on", 1.236, 3), quick=True)
    assert found.metric("total_time_ns").verdict == "worse"
    assert found.metric("critical_moe_ns").verdict == "better"
    assert sentence(found, "totals") == "mislead"
    misled = next(part for part in found.verdict if part.question == "totals")
    assert misled.evidence["busiest_rank_change"] == pytest.approx(1.236 / 1.4 - 1, abs=0.01)


def test_a_total_that_stays_does_not_show_balance(runs: Callable[..., Path]) -> None:
    """Rank 1 was 40 % slower; balanced, both take the mean: the total has nothing to tell."""
    found = nsysmoe.compare(runs("off", 1.0, 3, slow=1.4), runs("on", 1.2, 3), quick=True)
    assert found.metric("total_time_ns").verdict in {"within_noise", "same"}
    misled = next(part for part in found.verdict if part.question == "totals")
    assert "shows nothing" in misled.sentence
    assert sentence(found, "balance") == "better"


def test_runs_of_one_arm_against_each_other_mislead_nobody(runs: Callable[..., Path]) -> None:
    found = nsysmoe.compare(runs("off", 1.0, 3), runs("same", 1.0, 3))
    assert sentence(found, "balance") in {"within_noise", "same"}
    assert "totals" not in [part.question for part in found.verdict]
    assert "totals_mislead" not in [finding.code for finding in found.findings]
    overall = next(part for part in found.verdict if part.question == "overall")
    assert "misleads" not in overall.sentence


def test_parts_by_phase_and_rank_add_up(off: Path, on: Path) -> None:
    found = nsysmoe.compare(off, on)
    for kind in ("phase", "rank"):
        parts = [part for part in found.parts if part.kind == kind]
        for key in ("total_time_ns", "launches", "nccl_total_ns", "wait_ns"):
            changes = [next(c for c in part.metrics if c.metric == key) for part in parts]
            assert sum(c.baseline or 0 for c in changes) == found.metric(key).baseline, (kind, key)
    phases = [part for part in found.parts if part.kind == "phase"]
    critical = [next(c for c in p.metrics if c.metric == "critical_moe_ns") for p in phases]
    assert sum(c.candidate or 0 for c in critical) == found.metric("critical_moe_ns").candidate


def test_wall_time_is_what_devices_did(off: Path, on: Path) -> None:
    found = nsysmoe.compare(off, on)
    with closing(sqlite3.connect(off)) as database:
        windows = database.execute(
            'SELECT max("end") - min(start) FROM CUPTI_ACTIVITY_KIND_KERNEL GROUP BY globalPid'
        ).fetchall()
    assert found.metric("wall_time_ns").baseline == max(window for (window,) in windows)


def test_a_rearrangement_is_what_eplb_costs_and_no_distortion() -> None:
    found = nsysmoe.compare(GRAPHS / "eplb_off.sqlite", GRAPHS / "eplb_on.sqlite")
    assert not found.distorted_steps
    assert not found.undistorted
    moved = next(f for f in found.findings if f.code == "rearrangements").evidence["candidate"]
    assert [(part["transfers"], part["ranks"]) for part in moved] == [(7, 2)]
    assert moved[0]["stall_ns"] > 15e6


def test_a_step_that_compiles_is_replaced_by_a_usual_one(written: Write) -> None:
    slow = run_of(1.0, random.Random(1))
    # From the seventh step on everything is a second later; the call that loads code is in it.
    for kernel in slow.kernels:
        if kernel["start"] > 6 * 400_000:
            kernel["start"] += 10**9
            kernel["end"] += 10**9
    slow.call(5 * 400_000 + 350_000, 10, correlation=9_999, name="cuModuleLoadData")
    found = nsysmoe.compare(written(run_of(1.0, random.Random(1))), written(slow))
    (row,) = found.distorted_steps
    assert (row["step"], row["cause"], row["typical_ns"]) == (5, "code_load", 400_000)
    assert row["wall_ns"] == pytest.approx(10**9, rel=1e-3)
    usual = {change.metric: change for change in found.undistorted}["wall_time_ns"]
    assert usual.candidate == pytest.approx(usual.baseline, rel=2e-3)
    wall = next(part for part in found.verdict if part.question == "wall_time")
    assert wall.evidence["undistorted_wall_change"] == pytest.approx(0, abs=2e-3)
    assert wall.evidence["wall_change"] > 100


def test_other_gpus_are_not_comparable(runs: Callable[..., Path], written: Write) -> None:
    one = written(TraceBuilder().kernel("fused_moe_kernel", 0, 5))
    found = nsysmoe.compare(runs("off", 1.0, 1), one)
    assert {change.verdict for change in found.metrics} <= {"not_comparable", None}
    assert [part.question for part in found.verdict] == ["bound", "overall", "same_work"]
    assert "on 2 GPUs in one and 1 in the other" in found.verdict[2].sentence
    assert not found.undistorted


def test_a_summary_has_a_verdict_of_what_it_can_tell() -> None:
    found = nsysmoe.compare(TABLE1 / "eplb_off.csv", TABLE1 / "eplb_on.csv")
    answers = {part.question: part.answer for part in found.verdict}
    assert answers == {
        "overall": "unknown", "same_work": "nearly", "balance": "unknown",
        "wall_time": "unknown", "noise": "unknown",
    }  # fmt: skip
    assert {change.verdict for change in found.metrics[:8]} == {"worse", "better"}


def test_quick_reads_kernels_alone_and_says_less(off: Path, on: Path) -> None:
    quick, whole = nsysmoe.compare(off, on, quick=True), nsysmoe.compare(off, on)
    for mine, theirs in zip(quick.metrics[:14], whole.metrics[:14], strict=True):
        assert mine.baseline == pytest.approx(theirs.baseline, rel=1e-12)
    assert quick.metric("wall_time_ns").baseline is None
    assert quick.metric("critical_moe_ns").candidate == whole.metric("critical_moe_ns").candidate
    wall = next(part for part in quick.verdict if part.question == "wall_time")
    assert "--quick leaves it out" in wall.sentence
    assert not quick.parts


# --- gates --------------------------------------------------------------------------------------


def test_gates_fail_beyond_their_percent_and_noise(runs: Callable[..., Path]) -> None:
    off, on = runs("off", 1.0), runs("on", 1.05)
    found = nsysmoe.compare(off, on, quick=True)
    (line,) = failures(found, [Gate("total_time_ns", 1.0), Gate("total_time_ns", 20.0)])
    assert "total_time_ns is worse by +5." in line
    assert not failures(found, [Gate("launches", 0.0)])
    better = nsysmoe.compare(on, off, quick=True)
    assert not failures(better, [Gate("total_time_ns", 0.0)])


def test_a_gate_within_noise_passes(runs: Callable[..., Path]) -> None:
    found = nsysmoe.compare(runs("off", 1.0), runs("same", 1.0), quick=True)
    assert not failures(found, [Gate("total_time_ns", -50.0)])


def test_a_gate_that_cannot_be_judged_is_an_error() -> None:
    found = nsysmoe.compare(TABLE1 / "eplb_off.csv", TABLE1 / "eplb_on.csv")
    for metric in ("total_time_ns", "wall_time_ns"):
        with pytest.raises(GateError, match="cannot be judged"):
            failures(found, [Gate(metric, 1.0)])


# --- what is an arm -----------------------------------------------------------------------------


def test_folders_patterns_and_sequences_are_arms(off: Path, tmp_path: Path) -> None:
    for name in ("b.sqlite", "a.sqlite", "a.nsys-rep", "notes.txt"):
        shutil.copy(off, tmp_path / name)
    a, b = tmp_path / "a.sqlite", tmp_path / "b.sqlite"
    assert runs_of(tmp_path) == [a, b], "a report beside its export is the same run"
    assert runs_of(str(tmp_path / "*.sqlite")) == [a, b]
    assert runs_of([b, a]) == [b, a]
    (tmp_path / "arm" / "run-1").mkdir(parents=True)
    shutil.copy(off, tmp_path / "arm" / "run-1" / "trace.sqlite")
    assert runs_of(tmp_path / "arm") == [tmp_path / "arm" / "run-1" / "trace.sqlite"]
    odd = tmp_path / "what[1].sqlite"
    shutil.copy(off, odd)
    assert runs_of(odd) == [odd], "a file is a file, whatever its name looks like"


def test_a_pattern_may_match_folders_of_runs() -> None:
    named = [PAIRS / "off" / f"run-{number}" / "trace.sqlite" for number in (1, 2, 3)]
    assert runs_of(PAIRS / "off" / "run-*") == named
    both = str(PAIRS / "off" / "**" / "*[0-9e]")
    assert runs_of(both) == named, "a folder and the trace in it are one run"


def test_no_run_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"without \.sqlite exports"):
        runs_of(tmp_path)
    with pytest.raises(InputError, match="matches no file"):
        runs_of(str(tmp_path / "*.sqlite"))


def test_all_of_it_survives_json(off: Path, on: Path, tmp_path: Path) -> None:
    found = nsysmoe.compare(off, on)
    found.save(tmp_path / "c.json")
    assert nsysmoe.Comparison.load(tmp_path / "c.json") == found
    values = json.loads((tmp_path / "c.json").read_text())
    for key in ("verdict", "parts", "undistorted", "distorted_steps"):
        del values[key]
    for metric in values["metrics"]:
        del metric["interval"]
    (tmp_path / "old.json").write_text(json.dumps(values))
    assert nsysmoe.Comparison.load(tmp_path / "old.json").verdict == ()
