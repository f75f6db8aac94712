"""Sweeps: the paper's grid as a plan, and results of vLLM and of captures as one table."""

from __future__ import annotations

import json
from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner, Result

import nsysmoe
from nsysmoe.analysis.experiments.sweep import collect
from nsysmoe.cli import main
from nsysmoe.errors import InputError, MissingDataError
from nsysmoe.metrics.routed_load.expert_load import mean_layer_cv
from nsysmoe.sweep.grid import Cost, Grid, paper_grid, runs_of
from nsysmoe.sweep.results import MEASURED, read_results
from nsysmoe.sweep.table import means_by_point, read_table, varied_settings


def run(*arguments: str | int | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def plan(*arguments: str | int | Path) -> dict[str, Any]:
    found = run("sweep", "plan", *arguments, "--format", "json")
    assert found.exit_code == 0, found.stderr
    value: dict[str, Any] = json.loads(found.stdout)
    return value


def write(path: Path, value: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def bench(tpot_ms: float = 20.0, **more: Any) -> dict[str, Any]:
    """What ``vllm bench serve --save-result`` writes, as far as it matters."""
    return {
        "date": "20251201-101010", "backend": "openai", "model_id": "mixtral",
        "tokenizer_id": "mixtral", "num_prompts": 100, "request_rate": "inf", "burstiness": 1.0,
        "duration": 10.0, "completed": 100, "failed": 0, "total_input_tokens": 12_800,
        "total_output_tokens": 6_400, "request_throughput": 10.0, "request_goodput": None,
        "output_throughput": 640.0, "total_token_throughput": 1920.0, "input_lens": [128],
        "mean_ttft_ms": 250.0, "median_ttft_ms": 240.0, "std_ttft_ms": 30.0, "p99_ttft_ms": 400.0,
        "mean_tpot_ms": tpot_ms, "median_tpot_ms": 19.0, "std_tpot_ms": 2.0, "p99_tpot_ms": 30.0,
        **more,
    }  # fmt: skip


def test_without_options_it_is_the_papers_grid() -> None:
    found = plan()
    assert (found["points"], found["repeats"], len(found["runs"])) == (4 * 4 * 2, 3, 96)
    seen = {(one["routing"], *one["settings"].values()) for one in found["runs"]}
    assert len(seen) == 32
    assert Counter(one["point"] for one in found["runs"]).most_common(1)[0][1] == 3
    first, second = found["runs"][:2]
    assert first["arguments"] == [
        "--max-model-len", "4096", "--max-num-seqs", "4", "--max-num-batched-tokens", "2048",
    ]  # fmt: skip
    assert second["routing"] == "all2all"
    assert second["arguments"][-1] == "--enable-expert-parallel"
    # Repeats outermost: what drifts meets every point.
    assert [one["repeat"] for one in found["runs"]] == [1] * 32 + [2] * 32 + [3] * 32


def test_cost_by_hand() -> None:
    """96 runs of 90 + 30 s: 3.2 h, on 4 GPUs 12.8 GPU hours."""
    cost = Cost(90, 30, 4)
    assert cost.hours(96) == pytest.approx(3.2)
    assert Cost(90, 30, 4, at_once=5).hours(96) == pytest.approx(20 * 120 / 3600)
    assert Cost(90, 30, 4, at_once=5).gpu_hours(96) == pytest.approx(12.8)
    found = run("sweep", "plan", "--start-seconds", 90, "--run-seconds", 30, "--gpus", 4)
    assert found.stdout.startswith(
        "96 runs (32 points, 3 of each) take about 3.2 h, 12.8 GPU hours on 4 GPUs."
    )


def test_any_option_and_the_data_set_are_axes() -> None:
    found = plan(
        "--only-axes", "--axis", "max_num_seqs=8,16", "--axis", "async-scheduling=true,false",
        "--set", "gpu-memory-utilization=0.8", "--routing", "baseline", "--repeats", 1,
        "--dataset", "a.jsonl", "--dataset", "b.jsonl",
    )  # fmt: skip
    assert len(found["runs"]) == 2 * 2 * 2
    last = found["runs"][-1]
    assert last["dataset"] == "b.jsonl"
    assert last["settings"]["max-num-seqs"] == 16
    assert last["arguments"][-1] == "--no-async-scheduling"
    assert last["settings"]["gpu-memory-utilization"] == 0.8


def test_own_routing_configurations_are_added(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text('[axes]\nmax-num-seqs = [2]\n[routing.deepep]\nall2all-backend = "deepep"\n')
    found = plan("--config", path, "--repeats", 1)
    assert [one["routing"] for one in found["runs"]] == ["baseline", "all2all", "deepep"]
    assert found["runs"][-1]["settings"] == {
        "max-model-len": 4096, "max-num-seqs": 2, "all2all-backend": "deepep",
    }  # fmt: skip


def test_an_option_that_is_set_is_no_axis_any_longer() -> None:
    found = plan("--set", "max-num-seqs=3", "--repeats", 1)
    assert found["points"] == 4 * 2
    assert {one["settings"]["max-num-seqs"] for one in found["runs"]} == {3}


def test_options_of_a_configuration_may_have_underscores(tmp_path: Path) -> None:
    """As Python's arguments do: an option is planned by its name, however that is written."""
    path = tmp_path / "own.toml"
    path.write_text(
        "[axes]\nmax_num_seqs = [2]\n[fixed]\nmax_model_len = 8\n"
        "[routing.on]\nenable_expert_parallel = true\n"
    )
    (one,) = plan("--config", path, "--repeats", 1, "--routing", "on")["runs"]
    assert one["settings"] == {
        "max-model-len": 8, "max-num-seqs": 2, "enable-expert-parallel": True
    }  # fmt: skip


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[axes]\na = [nan]", "needs a list"),
        ("[routing.a]\nx = inf", "needs options"),
        ("x = [", "not TOML"),
        ("axes = 3", "is no table"),
        ("[axes]\na = []", "needs a list"),
        ("[routing]\na = 3", "needs options"),
    ],
)
def test_configurations_of_another_form(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "own.toml"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        paper_grid(path)


def test_plans_that_make_no_sense() -> None:
    assert run("sweep", "plan", "--routing", "nothing").exit_code == 2
    assert run("sweep", "plan", "--axis", "a=").exit_code == 2
    assert run("sweep", "plan", "--axis", "a=1,1").exit_code == 2
    assert run("sweep", "plan", "--set", "a=1,2").exit_code == 2
    too_many = run("sweep", "plan", "--repeats", 1_000_000)
    assert (too_many.exit_code, too_many.stderr.count("\n")) == (1, 1)
    for odd, said in (
        (["--axis", "max num seqs=1"], "'max num seqs' is no name of an option"),
        (["--axis", "a\x1b[2J=1"], "is no name of an option"),
        (["--axis", "a=4,04"], "a has a value twice"),
        (["--dataset", "x", "--dataset", "x"], "dataset has a value twice"),
    ):
        found = run("sweep", "plan", *odd)
        assert (found.exit_code, said in found.stderr) == (1, True), found.stderr
    twice = run("sweep", "plan", "--axis", "a=1", "--set", "a=2")
    assert (twice.exit_code, "a is asked for with --axis and" in twice.stderr) == (2, True)
    both = Grid({"a": (1,)}, {"r": {"a": 2}})
    with pytest.raises(InputError, match="an axis and an option of r"):
        runs_of(both)


def test_results_of_vllm_bench(tmp_path: Path) -> None:
    folder = tmp_path / "results"
    for number, tpot in enumerate((20.0, 22.0)):
        one = bench(tpot, run_number=number, max_num_seqs=8, enable_expert_parallel=True)
        write(folder / "SERVE-a" / f"run={number}.json", one)
    write(folder / "SERVE-a" / "warmup.json", bench(99.0, run_number=-1, max_num_seqs=8))
    write(folder / "SERVE-a" / "summary.json", [bench(), bench()])
    write(
        folder / "single.json", bench(30.0, max_num_seqs="4", routing="mine", dataset="x/s.jsonl")
    )
    frame = collect([folder]).frame
    assert frame.height == 3
    assert frame["routing"].to_list() == ["all2all", "all2all", "mine"]
    assert frame["max_num_seqs"].to_list() == [8, 8, 4]
    assert frame["repeat"].to_list() == [1, 2, 1]
    assert frame["point"].n_unique() == 2
    assert frame["tpot_s"].to_list() == pytest.approx([0.020, 0.022, 0.030])
    first = frame.row(0, named=True)
    for key, value in {
        "ttft_s": 0.25, "ttft_stddev_s": 0.03, "ttft_p50_s": 0.24, "ttft_p99_s": 0.4,
        "requests_per_s": 10.0, "output_tokens_per_s": 640.0, "requests": 100, "failed": 0,
    }.items():  # fmt: skip
        assert first[key] == pytest.approx(value), key


def record(*, ep: str = "on", digest: str = "d") -> dict[str, Any]:
    rows = [{"ttft_s": t / 10, "tpot_s": t / 100, "output_tokens": 16} for t in (1, 2, 3, 4)]
    slow = [{**row, "ttft_s": 9.0} for row in rows]
    return {
        "vllm": "0.26.0",
        "args": {"ep": ep, "max_num_seqs": 8, "more": {}},
        "capture": {"spec": {"workload": {"prompts_digest": digest}}},
        "runs": [
            {"round": "control", "summary": {"wall_s": 2.0}, "requests": rows},
            {"round": "profiled", "summary": {"wall_s": 9.0}, "requests": slow},
        ],
    }


@pytest.mark.parametrize("is_record", [False, True])
def test_what_is_measured_is_no_setting(tmp_path: Path, *, is_record: bool) -> None:
    """Whatever the reader writes: columns that the figures may not take for settings."""
    file = write(tmp_path / "run.json", record() if is_record else bench())
    (row,) = read_results(file)
    assert set(row) == {*MEASURED, "routing", "dataset", "settings"}
    frame = collect([file]).frame
    runs = pl.concat([frame, frame]).with_columns(
        *(pl.Series(name, [1, 2]) for name in (*MEASURED, "expected_score", "observed_cv")),
        max_num_seqs=pl.Series([8, 16]),
    )
    assert varied_settings(runs) == ["max_num_seqs"]


def test_what_vllm_measures_beside_tells_no_points_apart(tmp_path: Path) -> None:
    """Speculative decoding, diffusion, probes: repeats differ in them."""
    for number in range(2):
        beside: dict[str, Any] = {
            "spec_decode_acceptance_rate": 60.0 + number, "spec_decode_num_drafts": 900 + number,
            "diffusion_committed_tokens": 70 + number, "probe_completed": 5 + number,
            "probe_failed": number, "probe_max_e2el_ms": 3.5 + number, "max_num_seqs": "8",
        }  # fmt: skip
        write(tmp_path / f"{number}.json", bench(**beside))
    frame = collect([tmp_path]).frame
    assert frame["point"].n_unique() == 1
    assert frame["repeat"].to_list() == [1, 2]
    assert not [name for name in frame.columns if name.startswith(("spec", "diff", "probe"))]


def test_records_of_captures_without_the_profiler(tmp_path: Path) -> None:
    """TTFT 0.1 to 0.4 s: mean 0.25, deviation √(0.05 / 4); 4 requests in 2 s, 64 tokens."""
    write(tmp_path / "on" / "run-1" / "run.json", record())
    write(tmp_path / "off" / "run-1" / "run.json", record(ep="off"))
    frame = collect([tmp_path]).frame
    assert frame["routing"].to_list() == ["baseline", "all2all"]
    row = frame.row(1, named=True)
    assert row["ttft_s"] == pytest.approx(0.25)
    assert row["ttft_stddev_s"] == pytest.approx((0.05 / 4) ** 0.5)
    assert row["tpot_p50_s"] == pytest.approx(0.025)
    assert (row["requests_per_s"], row["output_tokens_per_s"]) == (2, 32)
    assert row["observed_cv"] is None


def test_observed_cv_by_hand(tmp_path: Path) -> None:
    """Two layers of four experts, two tokens with one choice each: 2, 0, 0, 0; 1, 1, 0, 0.

    CV = √3 for the first (mean 1/2, variance 3/4), 1 for the second.
    """
    write(tmp_path / "run.json", record())
    np.savez(tmp_path / "routing.npz", r0=np.array([[[0], [0]], [[0], [1]]], dtype=np.int16))
    (value,) = collect([tmp_path], experts=4).frame["observed_cv"]
    assert value == pytest.approx((3**0.5 + 1) / 2)
    balanced = pl.DataFrame({"layer": [0, 0], "expert": [0, 1]})
    assert mean_layer_cv(balanced) == 0
    assert mean_layer_cv(balanced.clear()) is None
    # A layer has fewer experts than were chosen: another model's number.
    with pytest.raises(MissingDataError, match=r"routing.npz: expert 1 .* beyond the 1 of a layer"):
        collect([tmp_path], experts=1)


def test_an_observed_cv_is_the_same_to_the_bit_whatever_the_order_of_choices() -> None:
    random = np.random.default_rng(5)
    choices = pl.DataFrame(
        {
            "layer": random.integers(0, 48, 90_000),
            "expert": random.integers(0, 128, 90_000) ** 2 // 128,
        }
    )
    found = {mean_layer_cv(choices.sample(fraction=1, shuffle=True, seed=n)) for n in range(20)}
    assert len(found) == 1


def test_expected_scores_by_digest_and_by_file(tmp_path: Path) -> None:
    sets = [
        {"file": "s.jsonl", "sha256": "d", "score": 0.5},
        {"file": "t.jsonl", "sha256": "e", "score": 0.7},
    ]
    suite = write(tmp_path / "suite" / "manifest.json", {"sets": sets})
    results = tmp_path / "results"
    write(results / "a" / "run.json", record(digest="e"))
    write(results / "b.json", bench(dataset_path="somewhere/s.jsonl"))
    write(results / "c.json", bench())
    frame = collect([results], suite=suite).frame
    assert frame["expected_score"].to_list() == [0.7, 0.5, None]
    with pytest.raises(InputError, match="has no `sets`"):
        collect([results], suite=write(tmp_path / "x.json", {}))
    for score, said in ((10**400, "without file"), (7, "between 0 and 1"), (None, "without file")):
        odd = write(tmp_path / "x.json", {"sets": [{**sets[0], "score": score}]})
        with pytest.raises(InputError, match=said):
            collect([results], suite=odd)


def test_what_is_damaged_or_failed_is_named(tmp_path: Path) -> None:
    write(tmp_path / "good.json", bench())
    write(tmp_path / "bad.json", bench(mean_ttft_ms="fast"))
    (tmp_path / "cut.json").write_text('{"request_throughput": 1')
    write(tmp_path / "endless.json", bench(mean_ttft_ms=10**400))
    write(tmp_path / "half.json", bench(dataset="\ud800"))
    write(tmp_path / "run=1.failure.json", {"error": "out of memory"})
    write(tmp_path / "other.json", {"hello": 1})
    found = collect([tmp_path])
    assert found.frame.height == 1
    assert [one.code for one in found.findings] == ["damaged_results", "failed_runs"]
    assert "mean_ttft_ms that is no measurement: 1000" in found.findings[0].message
    assert "half of a surrogate pair" in found.findings[0].message
    assert "mean_ttft_ms that is no measurement: fast" in found.findings[0].message
    with pytest.raises(MissingDataError, match="no result of a run"):
        collect([tmp_path / "other.json"])
    with pytest.raises(InputError, match="does not exist"):
        collect([tmp_path / "nowhere"])


def test_from_results_to_correlation_and_figures(tmp_path: Path) -> None:
    """The whole way: results, table, figures 1 to 3, and a correlation."""
    for seqs in (4, 8, 16, 32):
        for tokens in (2048, 4096):
            for number in (0, 1):
                value = bench(
                    seqs + number, run_number=number, max_num_seqs=seqs,
                    max_num_batched_tokens=tokens, enable_expert_parallel=False,
                )  # fmt: skip
                write(tmp_path / "r" / f"{seqs}-{tokens}" / f"run={number}.json", value)
    table = tmp_path / "sweep.parquet"
    found = run("sweep", "collect", tmp_path / "r", "--table", table)
    assert found.exit_code == 0, found.stderr
    assert found.stdout.startswith("16 runs of 8 points were collected.")
    assert pl.read_parquet(table).height == 16
    # Only what tells points apart is shown: not the model, nor what is the same in all.
    header = found.stdout.splitlines()[3].split()
    assert [line.split()[1] for line in found.stdout.splitlines()[4:12]] == [
        seqs for seqs in ("4", "8", "16", "32") for _ in (2048, 4096)
    ]
    assert header[:4] == ["routing", "max-num-seqs", "max-num-batched-tokens", "Runs"]
    shown = run("figures", table)
    assert shown.stdout.startswith("The table holds figures 1, 2, 3 of the paper")
    rows = json.loads(
        run("correlate", table, "--x", "max_num_seqs", "--y", "tpot", "--format", "json").stdout
    )
    assert rows[0]["unfiltered"]["points"] == 8
    assert rows[0]["unfiltered"]["slope"]["value"] == pytest.approx(0.001)


def test_the_table_is_parquet(tmp_path: Path) -> None:
    write(tmp_path / "good.json", bench())
    found = run("sweep", "collect", tmp_path / "good.json", "--table", tmp_path / "t.csv")
    assert found.exit_code == 1
    assert "must end in .parquet" in found.stderr


def test_twins_in_python_take_names_of_files(tmp_path: Path) -> None:
    for number, (routing, tpot) in enumerate(product(("baseline", "all2all"), (20.0, 21.0, 25.0))):
        one = bench(tpot, routing=routing, max_num_seqs=number, max_num_batched_tokens=2048)
        write(tmp_path / f"{number}.json", one)
    frame = nsysmoe.collect_sweep([str(tmp_path)]).frame
    frame.write_parquet(tmp_path / "t.parquet")
    (row,) = nsysmoe.correlate(
        str(tmp_path / "t.parquet"), x=["max_num_seqs"], y=["tpot"], by=None
    ).rows
    assert row.unfiltered.points == 6
    assert [one.number for one in nsysmoe.figures(str(tmp_path / "t.parquet")).figures] == [
        1, 2, 3, 4, 5,
    ]  # fmt: skip
    runs = nsysmoe.sweep_runs(nsysmoe.SweepGrid({"max-num-seqs": (4, 8)}, {"baseline": {}}))
    assert len(runs) == 6
    suite = nsysmoe.generate_workload(
        str(tmp_path / "suite"), nsysmoe.WorkloadPlan(("repetition",), (0.0,), 0, 3, 16),
        "whitespace",
    )  # fmt: skip
    (one,) = suite.manifest["sets"]
    found = nsysmoe.score_workload(str(tmp_path / "suite" / one["file"]), "whitespace")
    assert found.score == one["score"]


def test_runs_that_do_not_count_are_named_and_left_out(tmp_path: Path) -> None:
    write(tmp_path / "sweep" / "manifest.json", {"runs": []})
    write(tmp_path / "sweep" / "a" / "run-1" / "run.json", record())
    write(tmp_path / "sweep" / "failed" / "b-run-1" / "run.json", record(ep="off"))
    write(tmp_path / "sweep" / ".work" / "c-run-1" / "run.json", record(ep="off"))
    # Where nobody says what "failed" means, it is a folder like any other.
    write(tmp_path / "failed" / "run.json", record(ep="off"))
    found = collect([tmp_path])
    assert found.frame["routing"].to_list() == ["baseline", "all2all"]
    (finding,) = found.findings
    assert finding.code == "failed_runs"
    assert "failed/b-run-1/run.json" in finding.message


def test_spread_over_rounds_by_hand(tmp_path: Path) -> None:
    """4 requests of 16 tokens in 2 s and in 1 s: 2 and 4 a second, mean 3, deviation 1."""
    one = record()
    rounds = [{**one["runs"][0], "round": "measured"} for _ in range(2)]
    rounds[1] = {**rounds[1], "summary": {"wall_s": 1.0}, "failed": 2}
    write(tmp_path / "run.json", {**one, "runs": rounds})
    row = collect([tmp_path]).frame.row(0, named=True)
    assert (row["rounds"], row["requests"], row["failed"]) == (2, 8, 2)
    assert (row["requests_per_s"], row["requests_per_s_stddev"]) == (3, 1)
    assert (row["output_tokens_per_s"], row["output_tokens_per_s_stddev"]) == (48, 16)
    assert row["longest_round_over_median"] is None


def test_a_round_that_stands_apart_is_named(tmp_path: Path) -> None:
    """Rounds of 2, 2 and 6 s: three times the median; of 2, 2 and 2.9 s: chance."""
    one = record()
    for name, last in (("spoiled", 6.0), ("even", 2.9)):
        rounds = [
            {**one["runs"][0], "round": "measured", "summary": {"wall_s": wall}}
            for wall in (2.0, last, 2.0)
        ]
        write(tmp_path / name / "run.json", {**one, "runs": rounds})
    found = collect([tmp_path])
    assert found.frame["longest_round_over_median"].to_list() == [1.45, 3]
    (finding,) = found.findings
    assert finding.code == "uneven_rounds"
    source = str(tmp_path / "spoiled" / "run.json")
    assert finding.evidence == {"runs": [{"source": source, "longest_round_over_median": 3}]}
    assert f"{source} (3.0 times the median)" in finding.message


def test_parquet_that_is_damaged_anywhere_is_refused_or_read(tmp_path: Path) -> None:
    """polars itself ends the process over some of these."""
    path = tmp_path / "sweep.parquet"
    pl.DataFrame({"point": [0, 1], "runs": [1, 1], "tpot_s": [0.1, 0.2]}).write_parquet(path)
    assert means_by_point(read_table(path))["runs"].to_list() == [1, 1]
    content = path.read_bytes()
    for place in range(0, len(content), 3):
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        try:
            read_table(path)
        except InputError as error:
            assert "can be read" in str(error) or "cannot be read" in str(error)
