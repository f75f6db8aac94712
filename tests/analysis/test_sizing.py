"""``nsysmoe size``: from a replay of a known engine to layouts, limits and a lost device."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from nsysmoe.analysis.placing.sizing import Layout, Limits, size
from nsysmoe.errors import MissingDataError, PlacementError
from nsysmoe.traffic.folder import Folder
from nsysmoe.traffic.journal import Journal
from nsysmoe.traffic.outcome import Outcome
from tests.cli.test_cli import run
from tests.metrics.test_batching import Sequence, plain_engine, workload


def replayed(root: Path, sequences: list[Sequence], most: int = 256) -> Path:
    """Write the folder that a replay against the plain engine would leave."""
    plain_engine(sequences, most, 8192)
    Folder(root).write_manifest({"log": {}, "options": {}, "sessions": [{}], "model": "m"})
    with Journal(root / "requests.jsonl") as journal:
        for number, one in enumerate(sequences):
            first, last = one.times[0] - one.arrival, one.times[-1] - one.arrival
            tpot = (last - first) / (one.output - 1) if one.output > 1 else None
            journal.add(Outcome(
                number, str(number), 1, one.arrival, 0.0, 0.0, first, tpot, last, None,
                one.prompt, one.output, counted=True, asked_tokens=one.output,
            ))  # fmt: skip
    return root


def routed(path: Path, *, hot: float = 1.0, requests: int = 40) -> Path:
    """Write vLLM's returned experts: 8 experts, the first ``hot`` times as likely, top-2."""
    random = np.random.default_rng(1)
    chances = np.array([hot, *[1.0] * 7])
    arrays = {
        f"r{number}": np.stack([
            random.choice(8, (2,), replace=False, p=chances / chances.sum())
            for _ in range(60)
        ]).reshape(30, 2, 2).astype(np.uint8)
        for number in range(requests)
    }  # fmt: skip
    np.savez(path, **arrays)  # type: ignore[arg-type,unused-ignore]
    return path


def test_limits_of_the_batch_against_the_plain_engine(tmp_path: Path) -> None:
    replay = replayed(tmp_path / "replay", workload(400, 12.0))
    log = routed(tmp_path / "r.npz")
    found = size(replay, log, Limits(Layout(2), (), (256, 4)))
    assert [one.code for one in found.findings] == []
    for row in found.check:
        assert row["simulated_s"] == pytest.approx(row["measured_s"], rel=0.1)
    # What that engine does under the other limit.
    slow = workload(400, 12.0)
    plain_engine(slow, 4, 8192)
    truth = np.percentile([one.times[0] - one.arrival for one in slow], 99)
    (row,) = [one for one in found.rows if one["max_num_seqs"] == 4 and one["end"] == "moved"]
    assert row["ttft_p99_s"] == pytest.approx(truth, rel=0.1)
    # On its own layout nothing moves.
    for one in found.rows:
        if one["max_num_seqs"] == 4:
            assert one["ttft_p99_s"] == pytest.approx(row["ttft_p99_s"])


def test_more_devices_carry_less_and_a_hot_expert_keeps_one_busy(tmp_path: Path) -> None:
    replay = replayed(tmp_path / "replay", workload(200, 12.0))
    even = size(replay, routed(tmp_path / "even.npz"), Limits(Layout(2), (Layout(8),), (64,)))
    hot = size(
        replay, routed(tmp_path / "hot.npz", hot=50.0),
        Limits(Layout(2), (Layout(8), Layout(8, 8)), (64,), expert_share=0.5),
    )  # fmt: skip
    ratios = {one["layout"]: one["load_ratio"] for one in hot.layouts}
    assert ratios["2"] == 1.0
    assert even.layouts[1]["load_ratio"] < ratios["8"], "the hot expert's device is as busy"
    assert ratios["8+8"] < ratios["8"], "replicas of it help"
    steps = {(one["layout"], one["end"]): one["step_p50_s"] for one in hot.rows}
    assert steps["8", "moved"] < steps["8", "expected"] < steps["8", "unmoved"]
    assert not any("expert-share" in sentence for sentence in hot.unknown)
    assert any("expert-share" in sentence for sentence in even.unknown)


def test_a_lost_device_takes_its_experts_unless_they_have_replicas(tmp_path: Path) -> None:
    replay = replayed(tmp_path / "replay", workload(100, 12.0))
    log = routed(tmp_path / "r.npz")
    found = size(replay, log, Limits(Layout(4), (Layout(4, 8), Layout(2)), (64,)))
    lost = {one["layout"]: one for one in found.lost}
    # Two of eight experts in each of two layers, about a quarter of the choices.
    assert lost["4"]["homeless_experts"] == 4
    assert lost["4"]["homeless_share"] == pytest.approx(0.25, abs=0.05)
    assert (lost["4"]["slots_per_device"], lost["4"]["slots_needed"]) == (2, 3)
    # Of seven experts that have one home one device holds three, where it held two.
    assert lost["4"]["load_ratio"] == pytest.approx(3 / 2, rel=0.05)
    # Nobody else has replicas: the others carry at once what they carried before.
    for other in lost["4"]["others"]:
        assert other["at_once"] == other["before"]
    assert sum(one["after"] for one in lost["4"]["others"]) == pytest.approx(4)
    # With replicas they carry more at once: all but what found no expert.
    served = sum(one["at_once"] for one in lost["4+8"]["others"])
    assert served == pytest.approx(4 * (1 - lost["4+8"]["homeless_share"]))
    assert lost["4+8"]["at_once_ratio"] > 1
    # Every expert lives twice, on some plan not on two devices.
    assert lost["4+8"]["homeless_share"] < lost["4"]["homeless_share"]
    assert lost["2"]["load_ratio"] == pytest.approx(2.0, rel=0.1)


def test_the_command_prints_and_says_what_it_does_not_know(tmp_path: Path) -> None:
    replay = replayed(tmp_path / "replay", workload(100, 12.0))
    log = routed(tmp_path / "r.npz")
    asked = ("size", "--replay", replay, "--routing", log, "--now", "2", "--layout", "4+4",
             "--max-num-seqs", "8", "--max-num-seqs", "64")  # fmt: skip
    page = run(*asked).stdout
    assert "Not known: Communication" in page
    assert "A device lost" in page
    told = json.loads(run(*asked, "--format", "json").stdout)
    assert [one["layout"] for one in told["layouts"]] == ["2", "4+4"]
    assert len(told["rows"]) == 2 * 2 * 2


def test_advise_takes_a_replay_too(tmp_path: Path) -> None:
    replay = replayed(tmp_path / "replay", workload(100, 12.0))
    log = routed(tmp_path / "r.npz")
    asked = ("--replay", replay, "--routing", log, "--layout", "2", "--layout", "4",
             "--max-num-seqs", "8", "--format", "json")  # fmt: skip
    told = run("advise", *asked).stdout
    assert told == run("size", *asked).stdout
    assert json.loads(told)["now"] == "2"
    assert "assumed_layout" in [one["code"] for one in json.loads(told)["findings"]]
    known = json.loads(run("advise", *asked, "--now", "4").stdout)
    assert known["now"] == "4"
    assert [one["layout"] for one in known["layouts"]] == ["4", "2"]
    assert "assumed_layout" not in [one["code"] for one in known["findings"]]


@pytest.mark.parametrize(("values", "why"), [
    (["--replay", "x", "--gpus", "2"], "--gpus does not go with --replay"),
    (["--layout", "2"], "--layout needs --replay"), (["--replay", "x"], "give --now"),
])  # fmt: skip
def test_the_two_questions_of_advise_do_not_mix(values: list[str], why: str) -> None:
    found = run("advise", "--routing", "y", *values)
    assert (found.exit_code, why in found.stderr) == (2, True)


def test_experts_that_do_not_divide_among_the_replays_gpus_are_told(tmp_path: Path) -> None:
    replay = replayed(tmp_path / "replay", workload(100, 12.0))
    found = size(replay, routed(tmp_path / "r.npz"), Limits(Layout(3), (), (64,)))
    assert [one.evidence for one in found.findings] == [{"named": 8, "taken": 9}]
    with pytest.raises(MissingDataError, match="holds no replay"):
        size(tmp_path / "none", tmp_path / "r.npz", Limits(Layout(2), (), (64,)))
    with pytest.raises(MissingDataError, match="no layout is given"):
        size(replay, tmp_path / "r.npz", Limits(None, (), (64,)))


def test_too_few_requests_and_layouts_that_do_not_divide(tmp_path: Path) -> None:
    few = replayed(tmp_path / "few", workload(5, 12.0))
    log = routed(tmp_path / "r.npz")
    with pytest.raises(MissingDataError, match="fewer than 12 answered requests"):
        size(few, log, Limits(Layout(2), (), (64,)))
    enough = replayed(tmp_path / "enough", workload(60, 12.0))
    with pytest.raises(PlacementError, match="do not divide among 3 GPUs"):
        size(enough, log, Limits(Layout(2), (Layout(3),), (64,)))
    assert run("size", "--replay", few, "--routing", log, "--now", "0").exit_code == 2
