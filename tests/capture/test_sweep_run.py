"""``nsysmoe sweep run`` as a process, on a node whose vLLM and driver are played."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import nsysmoe
from nsysmoe.capture.node.nsysmoe_workload import arrivals
from tests.capture.node import Node, bare, port
from tests.capture.node import node as make_node

FOUR_GPUS = {
    "FAKE_GPUS": "\n".join(f"{n}, NVIDIA H100 80GB HBM3, 4, 81559, 580.1" for n in range(4))
}
POINTS = [
    f"{routing},max-num-seqs={seqs}" for seqs in (2, 4) for routing in ("baseline", "all2all")
]


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return make_node(tmp_path)


def record(node: Node, point: str, number: int = 1) -> dict[str, Any]:
    path = node.output / point / f"run-{number}" / "run.json"
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_from_a_grid_to_its_table_and_figures(node: Node) -> None:
    done = node.sweep("--repeats", "2", "--routed-experts")
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith(
        "8 runs (4 points, 2 of each) take about 24 min, 0.8 GPU hours on 2 GPUs."
    )
    # Repeats outermost, and of each setting both configurations next to one another.
    titles = [
        line.split("] ")[1] for line in done.stderr.splitlines() if line.endswith(": loading")
    ]
    assert titles == [f"{point}-run-{number}: loading" for number in (1, 2) for point in POINTS]
    assert "min left" in done.stderr
    written = record(node, "all2all,max-num-seqs=2")
    assert [one["round"] for one in written["runs"]] == ["measured"] * 3
    assert {"routing": "all2all", "ep": "on", "max_num_seqs": 2}.items() <= written["args"].items()
    assert record(node, "baseline,max-num-seqs=4")["args"]["ep"] == "off"
    # What differs was given to vLLM, not only written down.
    log = node.output / "all2all,max-num-seqs=2" / "run-1" / "engine.log"
    assert "'max_num_seqs': 2" in log.read_text()
    assert "'enable_expert_parallel': True" in log.read_text()
    frame = nsysmoe.collect_sweep([node.output]).frame
    assert frame.height == 8
    assert frame["point"].n_unique() == 4
    assert sorted(frame["repeat"].to_list()) == [1] * 4 + [2] * 4
    assert set(frame["rounds"].to_list()) == {3}
    assert set(frame["requests"].to_list()) == {12}
    spread = [name for name in frame.columns if "stddev" in name]
    assert frame.select(spread).null_count().sum_horizontal().item() == 0
    assert frame["observed_cv"].null_count() == 0
    assert "start_profile" not in [note[2] for note in node.notes]


def test_points_run_beside_one_another_on_gpus_of_their_own(node: Node) -> None:
    done = node.sweep("--gpu-sets", "0,1:2,3", **FOUR_GPUS, FAKE_ROUND_S="0.1")
    assert done.returncode == 0, done.stderr
    sets = [record(node, point)["capture"]["gpu_set"] for point in POINTS]
    assert sorted(map(tuple, sets)) == [("0", "1")] * 2 + [("2", "3")] * 2
    assert len(record(node, POINTS[0])["capture"]["gpus"]) == 2
    # The second began before the first was done.
    lines = done.stderr.splitlines()
    loading = [place for place, line in enumerate(lines) if line.endswith(": loading")]
    complete = [place for place, line in enumerate(lines) if ": complete in" in line]
    assert loading[1] < complete[0]
    assert node.living() == []


def test_jobs_cut_the_visible_gpus_into_sets(node: Node) -> None:
    done = node.sweep("--jobs", "2", **FOUR_GPUS, CUDA_VISIBLE_DEVICES="3,1,0,2")
    assert done.returncode == 0, done.stderr
    sets = {tuple(record(node, point)["capture"]["gpu_set"]) for point in POINTS}
    assert sets == {("3", "1"), ("0", "2")}
    done = node.sweep("--jobs", "2", "-o", str(node.home / "other"))
    assert (
        "there is no 2, 3 among 2"
        in node.sweep("--jobs", "2", "--check", "-o", str(node.home / "other")).stdout
    )
    assert done.returncode == 1
    done = node.sweep("--jobs", "2", CUDA_VISIBLE_DEVICES="0,1")
    assert done.returncode == 2
    assert "2 runs need 4" in done.stderr


def test_a_sweep_goes_on_where_it_ended(node: Node) -> None:
    process = node.start_sweep("--jobs", "2", **FOUR_GPUS, FAKE_VLLM="hang@seqs4")
    work = node.output / ".work"
    limit = time.monotonic() + 40
    while len([one for one in work.glob("*seqs=4*/engine.log") if one.stat().st_size]) < 2:
        assert time.monotonic() < limit
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=40)
    assert process.returncode == 130
    assert "Interrupted (SIGINT): 2 of 4 runs are complete" in err
    assert node.living() == []
    assert [one["status"] for one in node.manifest()["runs"]] == ["complete"] * 2 + ["missing"] * 2
    kept = (node.output / POINTS[0] / "run-1" / "run.json").stat().st_mtime_ns
    # One at a time this time: where runs are made is no option of what they measure.
    done = node.sweep()
    assert done.returncode == 0, done.stderr
    assert f"{POINTS[0]}-run-1 is there already" in done.stderr
    assert (node.output / POINTS[0] / "run-1" / "run.json").stat().st_mtime_ns == kept
    before = len(node.notes)
    # More points, and more repeats, add to it.
    assert node.sweep("--axis", "max-num-seqs=2,8", "--repeats", "2").returncode == 0
    assert len(node.notes) > before
    assert len(node.manifest()["runs"]) == 8 + 2
    done = node.sweep("--measured-rounds", "5")
    assert "holds a capture with other options" in done.stderr


def test_a_point_that_fails_does_not_keep_the_others(node: Node) -> None:
    done = node.sweep(FAKE_VLLM="crash@seqs2")
    assert done.returncode == 1
    assert done.stdout.endswith(f"2 of 4 runs count in {node.output}\n")
    assert "failed/baseline,max-num-seqs=2-run-1" in done.stdout
    assert "vLLM ended with status 1" in done.stdout
    assert (node.output / "failed" / f"{POINTS[0]}-run-1" / "engine.log").exists()
    assert nsysmoe.collect_sweep([node.output]).frame.height == 2
    assert node.sweep().returncode == 0
    assert nsysmoe.collect_sweep([node.output]).frame.height == 4


def test_a_sweep_in_which_nothing_works_ends(node: Node) -> None:
    done = node.sweep(FAKE_VLLM="crash@load")
    assert done.returncode == 1
    (line,) = [one for one in done.stderr.splitlines() if one.startswith("Error: ")]
    assert "vLLM ended with status 1; 0 of 4 runs are complete" in line
    assert "  RuntimeError: CUDA out of memory, says the fake" in done.stderr.splitlines()
    assert [one["status"] for one in node.manifest()["runs"]] == ["failed"] * 3 + ["missing"]


def test_click_is_all_that_a_node_needs(node: Node) -> None:
    hidden = f"{bare(node.home)}{os.pathsep}{node.environment['PYTHONPATH']}"
    done = node.sweep_as_program("--jobs", "2", **FOUR_GPUS, PYTHONPATH=hidden)
    assert done.returncode == 0, done.stderr
    assert [run["status"] for run in node.manifest()["runs"]] == ["complete"] * 4


def test_configurations_data_sets_and_layouts_of_ones_own(node: Node) -> None:
    for name in ("a", "b"):
        rows = [{"prompt_token_ids": [5, 6, 7], "max_tokens": 4 + (name == "b")}] * 3
        (node.home / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = node.home / "own.toml"
    config.write_text(
        "[routing.balanced]\nenable-expert-parallel = true\nenable-eplb = true\n"
        "num-redundant-experts = 2\n\n[routing.apart]\ndata-parallel-size = 2\n"
        'tensor-parallel-size = 1\nattention-config = \'{"backend":"X"}\'\n'
    )
    done = node.sweep(
        "--config", str(config), "--routing", "balanced", "--routing", "apart",
        "--dataset", "a.jsonl", "--dataset", "b.jsonl", "--axis", "max-num-seqs=2",
        "--eplb-interval", "96", "--port", port(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in node.output.glob("[!.]*") if path.is_dir()) == [
        f"{routing},max-num-seqs=2,{name}" for routing in ("apart", "balanced") for name in "ab"
    ]
    balanced = record(node, "balanced,max-num-seqs=2,b")
    assert balanced["args"]["eplb"] == "on"
    assert balanced["capture"]["spec"]["balancing"]["redundant"] == 2
    assert balanced["runs"][0]["requests"][0]["output_tokens"] == 5
    apart = record(node, "apart,max-num-seqs=2,a")
    assert [row["rank"] for row in apart["runs"][0]["requests"]] == [0, 0, 1]
    frame = nsysmoe.collect_sweep([node.output]).frame
    assert frame["dataset"].to_list() == ["a.jsonl", "b.jsonl"] * 2
    assert frame["digest"].n_unique() == 2
    assert frame.filter(pl.col("routing") == "apart")["dp"].to_list() == [2, 2]


def test_a_sweep_over_data_sets_of_known_score(node: Node) -> None:
    plan = nsysmoe.WorkloadPlan(("repetition",), (0.0, 0.5, 1.0), 0, 3, 12, token_ids=True)
    suite = nsysmoe.generate_workload(node.home / "suite", plan, "mixtral")
    sets = [f"--dataset=suite/{one['file']}" for one in suite.manifest["sets"]]
    done = node.sweep(*sets, "--routing", "all2all", "--axis", "max-num-seqs=2", "--routed-experts")
    assert done.returncode == 0, done.stderr
    found = nsysmoe.collect_sweep([node.output], suite=node.home / "suite" / "manifest.json")
    scores = {one["file"]: one["score"] for one in suite.manifest["sets"]}
    for row in found.frame.to_dicts():
        assert row["expected_score"] == scores[Path(row["dataset"]).name]
        assert row["observed_cv"] is not None
    found.frame.write_parquet(node.home / "t.parquet")
    drawn = nsysmoe.figures(node.home / "t.parquet").figures
    assert [one.number for one in drawn if one.panels][-2:] == [4, 5]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--set", "max-model-len=many"), "max-model-len of the sweep must be a number from 1"),
        (("--set", "enable-eplb=1"), "enable-eplb of the sweep must be true or false"),
        (("--routing", "baseline", "--set", "enable-eplb=true"), "nothing to balance"),
        (("--gpu-sets", "0,1:1,2"), "a GPU is in two of --gpu-sets"),
        (("--gpu-sets", "0:1"), "0 of --gpu-sets are not the 2 GPUs of a run"),
        (("--request-rate", "4"), "need --mode server"),
        (("--dataset", "nowhere.jsonl"), "nowhere.jsonl cannot be read"),
    ],
)
def test_what_cannot_be_swept_is_refused_before_anything_starts(
    more: tuple[str, ...], said: str, node: Node
) -> None:
    done = node.sweep(*more)
    assert done.returncode == 1
    assert said in done.stderr
    assert not node.output.exists()


def test_servers_and_requests_that_arrive_one_after_the_other(node: Node) -> None:
    done = node.sweep(
        "--mode", "server", "--routing", "all2all", "--request-rate", "20", "--port", port()
    )
    assert done.returncode == 0, done.stderr
    written = record(node, "all2all,max-num-seqs=2")
    assert written["args"]["request_rate"] == 20
    last = arrivals(20, 4, 0)[-1]
    assert all(one["summary"]["wall_s"] > last for one in written["runs"])
    frame = nsysmoe.collect_sweep([node.output]).frame
    assert frame["request_rate"].to_list() == [20, 20]
    # Each server answers a token a millisecond.
    assert all(0.0008 < value < 0.05 for value in frame["tpot_s"].to_list())
    assert not any("/start_profile" in note[2] for note in node.notes)


def test_vllm_bench_serve_as_the_load(node: Node) -> None:
    prompts = node.home / "texts.jsonl"
    prompts.write_text('{"prompt": "a b c"}\n' * 3)
    done = node.sweep(
        "--mode", "server", "--routing", "all2all", "--load", "bench", "--port", port(),
        "--axis", "max-num-seqs=2", "--dataset", str(prompts), FAKE_VLLM="bench_fails_once",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [note[2] for note in node.notes if note[2].startswith("bench")] == [
        "bench custom inf"
    ] * 5
    written = record(node, "all2all,max-num-seqs=2,texts")
    assert written["runs"][0]["bench"]["model_id"] == "m"
    first = written["runs"][0]["requests"][0]
    assert first["tpot_s"] == pytest.approx(first["ttft_s"])
    assert first["e2e_s"] == pytest.approx(8 * first["ttft_s"])
    (row,) = nsysmoe.collect_sweep([node.output]).frame.to_dicts()
    assert (row["requests"], row["failed"], row["load"]) == (6, 3, "bench")


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("bench_crashes", "vllm bench serve ended with status 1"),
        ("bench_fails", "no request of vllm bench serve came to an end: ConnectionError: refused"),
    ],
)
def test_benchmarks_that_fail(how: str, said: str, node: Node) -> None:
    done = node.capture(
        "--runs", "1", "--eplb", "off", "--mode", "server", "--load", "bench", "--port", port(),
        FAKE_VLLM=how,
    )  # fmt: skip
    assert done.returncode == 1
    assert said in done.stderr
    assert node.living() == []


def test_a_benchmark_is_profiled_by_itself(node: Node) -> None:
    done = node.capture(
        "--runs", "1", "--eplb", "off", "--mode", "server", "--load", "bench", "--port", port()
    )
    assert done.returncode == 0, done.stderr
    written = record(node, "off")
    assert [one["round"] for one in written["runs"]] == ["control", "profiled"]
    lines = [note[2] for note in node.notes]
    start = lines.index("/start_profile")
    assert lines[start - 1] == "bench random inf"
    assert lines[start:] == ["/start_profile", *["complete 8"] * 4, "/stop_profile"]


def test_a_benchmark_sends_texts_of_one_length(node: Node) -> None:
    prompts = node.home / "ids.jsonl"
    prompts.write_text('{"prompt_token_ids": [5]}\n')
    more = ("--mode", "server", "--load", "bench", "--port", port(), "--dataset", str(prompts))
    done = node.sweep(*more, "--routing", "all2all", "--axis", "max-num-seqs=2")
    assert done.returncode == 1
    assert "the file holds prompt_token_ids alone" in done.stdout


def test_profiled_points_are_verified_as_captures(node: Node) -> None:
    done = node.sweep(
        "--profile", "--nsys", str(node.home / "bin" / "nsys"), "--routing", "all2all",
        "--axis", "max-num-seqs=2",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (node.output / "all2all,max-num-seqs=2" / "run-1").iterdir()} == {
        "trace.nsys-rep", "trace.sqlite", "run.json", "engine.log",
    }  # fmt: skip
    assert node.manifest()["runs"][0]["launches"] == 8


def test_runs_without_a_trace_are_not_verified_away(node: Node) -> None:
    assert node.sweep("--routing", "all2all").returncode == 0
    from click.testing import CliRunner

    from nsysmoe.cli import main

    done = CliRunner().invoke(main, ["capture", "--verify", str(node.output)])
    assert done.exit_code == 1
    assert "there is no trace to verify" in done.stderr
    assert (node.output / "all2all,max-num-seqs=2" / "run-1").exists()
