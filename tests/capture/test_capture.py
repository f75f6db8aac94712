"""``nsysmoe capture`` as a process, on a node whose nsys, vLLM and driver are played."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

import nsysmoe
from nsysmoe.capture.plan import Command
from nsysmoe.capture.process import Program, family, marked, sweep
from nsysmoe.reports import render
from nsysmoe.reports.pages.comparing.comparison import comparison_page
from nsysmoe.routing import read_run, read_vllm_log
from tests.capture.node import Node, port
from tests.capture.node import bare as bare_of
from tests.capture.node import node as make_node
from tests.conftest import ROOT, ignored

PAIR = ("--runs", "1", "--no-eplb-async")


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return make_node(tmp_path)


def test_a_pair_from_one_command_to_a_comparison(node: Node) -> None:
    done = node.capture_as_program("--runs", "2", "--no-eplb-async")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f"4 of 4 runs count in {node.output}\n")
    titles = [line for line in done.stderr.splitlines() if line.endswith(": loading")]
    assert titles == [
        f"[{place}/4] {name}: loading"
        for place, name in enumerate(("off-run-1", "on-run-1", "off-run-2", "on-run-2"), 1)
    ]
    folder = node.output / "on" / "run-2"
    assert {path.name for path in folder.iterdir()} == {
        "trace.nsys-rep", "trace.sqlite", "run.json", "routing.npz", "routing.parquet",
        "engine.log",
    }  # fmt: skip
    found = nsysmoe.compare(node.output / "off", node.output / "on", quick=True)
    assert len(found.baseline.sources) == 2
    tpot = {row["metric"]: row for row in found.latency}["tpot_p50_s"]
    assert tpot["baseline"] == pytest.approx(0.001 / 7, rel=1e-3)
    assert (tpot["baseline_runs"], tpot["candidate_runs"]) == (2, 2)
    found.save(node.home / "saved.json")
    assert nsysmoe.Comparison.load(node.home / "saved.json").latency == found.latency
    text = render(comparison_page(found), "table")
    assert "What users saw: EPLB OFF against EPLB ON, means over 2 and 2 runs" in text
    assert "Time per output token, median (ms)" in text
    # A whole arm, or one run of it.
    summary = nsysmoe.summarize(node.output / "on")
    assert summary.source.endswith("trace.sqlite")
    assert "one_of_runs" in {finding.code for finding in summary.findings}
    info = nsysmoe.describe(folder)
    assert info.source == str(folder / "trace.sqlite")
    assert "one_of_runs" not in {finding.code for finding in info.findings}


def test_the_record_is_one_that_routing_reads(node: Node) -> None:
    assert node.capture(*PAIR).returncode == 0
    folder = node.output / "on" / "run-1"
    record, log = read_run(folder / "run.json"), read_vllm_log(folder / "routing.npz")
    assert record.prompt_tokens == (8,) * 4
    assert record.map_before == record.map_after
    assert log.tokens == (15,) * 4
    rows = pl.read_parquet(folder / "routing.parquet")
    assert set(rows["run"]) == {"on/run-1"}
    assert rows.height == log.choices.height
    assert rows.filter(phase="prefill")["token"].n_unique() == 8
    written = json.loads((folder / "run.json").read_text())
    assert [one["round"] for one in written["runs"]] == ["control", "profiled"]
    assert written["rearrangements"] == {"before": 1, "inside": 0}
    assert written["capture"]["gpus"] == ["NVIDIA H100 80GB HBM3"] * 2


def test_every_shape_and_both_unprofiled_rounds_come_before_the_range(node: Node) -> None:
    assert node.capture(*PAIR, "--eplb", "off").returncode == 0
    lines = [note[2] for note in node.notes]
    start = lines.index("start_profile")
    assert lines[:start][-2:] == ["generate 4"] * 2
    assert lines[start:] == ["start_profile", "generate 4", "stop_profile"]
    assert {"generate 1", "generate 2", "generate 4"} <= set(lines[:start])


def test_rounds_are_added_where_the_counter_is_not_where_it_was_planned(node: Node) -> None:
    # Every batch takes so many idle steps more than anybody could plan.
    idle = {"FAKE_IDLE_STEPS": "13"}
    done = node.capture(*PAIR, "--eplb", "on", "--tensor-parallel", "1", "--data-parallel", "2",
                        "--port", port(), "--warm-rounds", "2", **idle)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "one more round 1 of 64" in done.stderr
    record = json.loads((node.output / "on" / "run-1" / "run.json").read_text())
    assert record["rearrangements"]["before"] >= 1
    assert record["rearrangements"]["inside"] == 0


def test_data_parallel_ranks_share_one_report_and_one_record(node: Node) -> None:
    done = node.capture(*PAIR, "--tensor-parallel", "1", "--data-parallel", "2", "--port", port())
    assert done.returncode == 0, done.stderr
    record = json.loads((node.output / "on" / "run-1" / "run.json").read_text())
    assert [row["rank"] for row in record["runs"][-1]["requests"]] == [0, 0, 1, 1]
    assert record["prompts"]["count"] == 4
    assert len(record["eplb_after"]) == 2
    # Traces know processes by their ids.
    pids = {note[1]: note[0] for note in node.notes}
    assert [(row["pid"], row["data_parallel_rank"]) for row in record["workers"]] == [
        (pids["0"], 0), (pids["1"], 1),
    ]  # fmt: skip
    assert set(read_run(node.output / "on" / "run-1" / "run.json").workers) == {*pids.values()}
    assert len(read_vllm_log(node.output / "on" / "run-1" / "routing.npz").tokens) == 4
    # Both ranks record before either works, and until both are done.
    order = [note[2] for note in node.notes][-6:]
    assert sorted(order[:2]) == ["start_profile"] * 2
    assert sorted(order[-2:]) == ["stop_profile"] * 2


def test_a_rank_that_crashes_takes_the_others_with_it(node: Node) -> None:
    done = node.capture(
        *PAIR, "--tensor-parallel", "1", "--data-parallel", "2", "--port", port(),
        FAKE_VLLM="crash@rank1",
    )  # fmt: skip
    assert done.returncode == 1
    assert "vLLM ended with status 1" in done.stderr
    assert node.living() == []


@pytest.mark.parametrize(
    ("fake", "more", "said"),
    [
        ({"FAKE_VLLM": "crash@load"}, (), "loading: vLLM ended with status 1"),
        ({"FAKE_VLLM": "hang@profile"}, ("--run-timeout", "2"), "measuring: not done after 2 s"),
        ({"FAKE_NSYS": "full"}, (), "vLLM ended with status 1"),
        ({"FAKE_NSYS": "nothing"}, (), "nsys wrote no report"),
        ({"FAKE_NSYS": "no_importer"}, (), "nsys could not import what it recorded"),
        ({"FAKE_NSYS": "export_fails"}, (), "nsys export failed (Importer error"),
        ({"FAKE_NSYS": "export_hangs"}, ("--run-timeout", "2"), "nsys export did not end"),
    ],
)
def test_ends_that_are_not_clean(
    fake: dict[str, str], more: tuple[str, ...], said: str, node: Node
) -> None:
    done = node.capture(*PAIR, *more, **fake)
    assert done.returncode == 1
    (line,) = [one for one in done.stderr.splitlines() if one.startswith("Error: ")]
    assert said in line
    assert "0 of 2 runs are complete" in line
    assert "the same command goes on" in line
    assert node.living() == []
    # No comparison sees it; what there is can be looked at.
    assert not (node.output / "off").exists()
    assert (node.output / "failed" / "off-run-1" / "engine.log").exists()
    (off, on) = node.manifest()["runs"]
    assert (off["status"], on["status"]) == ("failed", "missing")


def test_the_end_of_the_log_is_shown_and_the_next_call_makes_the_run_anew(node: Node) -> None:
    done = node.capture(*PAIR, FAKE_VLLM="crash@load")
    assert "  RuntimeError: CUDA out of memory, says the fake" in done.stderr.splitlines()
    assert node.capture(*PAIR).returncode == 0


def test_programs_that_ignore_being_asked_are_killed_with_their_children(node: Node) -> None:
    process = node.start(*PAIR, "--end-timeout", "1", FAKE_VLLM="stubborn@load")
    child = int(node.wait_for("child")[2].split()[1])
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    # Once more, as a person does who sees nothing happen.
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=40)
    assert process.returncode == 130
    assert "Interrupted (SIGINT): 0 of 2 runs are complete" in err
    assert node.living() == []
    assert child not in {process.pid for process in family(child)}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_other_signals_end_it_as_well(number: signal.Signals, node: Node) -> None:
    process = node.start(*PAIR, FAKE_VLLM="hang@profile")
    node.wait_for("start_profile")
    process.send_signal(number)
    process.communicate(timeout=40)
    assert process.returncode == 130
    assert node.living() == []


def ignores(pid: int, number: signal.Signals) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    (mask,) = re.findall(r"^SigIgn:\s*(\w+)$", status, re.MULTILINE)
    return bool(int(mask, 16) & 1 << number - 1)


def test_in_the_background_it_goes_on_and_its_programs_can_be_asked_to_end(node: Node) -> None:
    """A shell without job control has what it starts there ignore SIGINT; nohup SIGHUP."""
    numbers = (signal.SIGINT, signal.SIGHUP)
    with ignored(*numbers):
        process = node.start(*PAIR, FAKE_VLLM="hang@profile")
    node.wait_for("start_profile")
    for number in numbers:
        process.send_signal(number)
    programs = node.living()
    assert programs
    assert not any(ignores(pid, number) for pid in programs for number in numbers)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=40)
    assert "Interrupted (SIGTERM)" in err
    assert node.living() == []


def test_it_goes_on_after_a_kill(node: Node) -> None:
    assert node.capture(*PAIR).returncode == 0
    kept = (node.output / "off" / "run-1" / "trace.sqlite").stat().st_mtime_ns
    more = ("--runs", "2", "--no-eplb-async")
    process = node.start(*more, FAKE_VLLM="hang@profile")
    before = len(node.notes)
    limit = time.monotonic() + 30
    while "start_profile" not in [note[2] for note in node.notes[before:]]:
        assert time.monotonic() < limit
        time.sleep(0.02)
    process.kill()
    process.communicate()
    assert node.living() != []
    done = node.capture(*more)
    assert done.returncode == 0, done.stderr
    assert "processes that an earlier capture left" in done.stderr
    assert "off-run-1 is there already" in done.stderr
    assert "off-run-2: loading" in done.stderr
    assert node.living() == []
    assert (node.output / "off" / "run-1" / "trace.sqlite").stat().st_mtime_ns == kept
    assert [run["status"] for run in node.manifest()["runs"]] == ["complete"] * 4


def test_a_whole_capture_is_not_repeated(node: Node) -> None:
    # Left by one that was killed before it wrote a word.
    (node.output / ".work" / "on-run-1").mkdir(parents=True)
    assert node.capture(*PAIR).returncode == 0
    before = len(node.notes)
    assert node.capture(*PAIR).returncode == 0
    assert len(node.notes) == before


def test_captures_are_not_mixed(node: Node) -> None:
    assert node.capture(*PAIR, "--eplb", "off").returncode == 0
    done = node.capture(*PAIR, "--seed", "1")
    assert done.returncode == 1
    assert "holds a capture with other options" in done.stderr
    (node.home / "other").mkdir()
    (node.home / "other" / "thesis.tex").touch()
    done = node.capture(*PAIR, "-o", str(node.home / "other"))
    assert "holds something else (thesis.tex)" in done.stderr


def test_a_capture_of_an_earlier_version_goes_on(node: Node) -> None:
    assert node.capture(*PAIR).returncode == 0
    path = node.output / "manifest.json"
    manifest = node.manifest()
    manifest["spec"]["arms"] = ["off", "on"]
    del manifest["spec"]["load"], manifest["spec"]["gpu_sets"], manifest["spec"]["keeps_going"]
    path.write_text(json.dumps(manifest))
    assert node.capture("--runs", "2", "--no-eplb-async").returncode == 0
    assert [run["status"] for run in node.manifest()["runs"]] == ["complete"] * 4
    manifest["spec"]["arms"] = ["off", {**node.manifest()["spec"]["arms"][1], "redundant": 2}]
    path.write_text(json.dumps(manifest))
    done = node.capture(*PAIR)
    assert done.returncode == 1
    assert "holds runs of on with other options" in done.stderr


def test_the_manifest_keeps_arms_that_are_not_asked_for(node: Node) -> None:
    assert node.capture(*PAIR).returncode == 0
    done = node.capture(*PAIR, "--eplb", "on")
    assert done.stdout.endswith(f"1 of 1 runs count in {node.output}\n")
    manifest = node.manifest()
    assert {run["arm"]: run["status"] for run in manifest["runs"]} == {
        "on": "complete", "off": "complete",
    }  # fmt: skip
    assert {arm["name"] for arm in manifest["spec"]["arms"]} == {"off", "on"}


def test_two_captures_do_not_share_a_folder(node: Node) -> None:
    first = node.start(*PAIR, FAKE_VLLM="hang@profile")
    node.wait_for("start_profile")
    second = node.capture(*PAIR)
    assert second.returncode == 1
    assert "another capture writes to" in second.stderr
    first.send_signal(signal.SIGTERM)
    first.communicate(timeout=40)
    assert node.living() == []


def test_a_run_that_fails_its_verification_is_set_aside(node: Node) -> None:
    # The trace of the ON arm shows no EPLB.
    wrong = {"FAKE_TRACE_ON": node.environment["FAKE_TRACE_OFF"]}
    done = node.capture("--runs", "2", "--no-eplb-async", **wrong)
    assert done.returncode == 1
    assert done.stdout.endswith(f"2 of 4 runs count in {node.output}\n")
    assert "on-run-1: does not count: fail  EPLB: no sign of it" in done.stderr
    assert sorted(path.name for path in node.output.iterdir() if path.name[0] != ".") == [
        "failed", "manifest.json", "off",
    ]  # fmt: skip


def test_verifying_on_another_machine(node: Node) -> None:
    bare = {"PYTHONPATH": f"{bare_of(node.home)}{os.pathsep}{node.environment['PYTHONPATH']}"}
    done = node.capture_as_program(*PAIR, **bare)
    assert done.returncode == 0, done.stderr
    assert [run["status"] for run in node.manifest()["runs"]] == ["unverified"] * 2
    wrong = node.output / "on" / "run-1" / "trace.sqlite"
    wrong.write_bytes(Path(node.environment["FAKE_TRACE_OFF"]).read_bytes())
    found = subprocess.run(
        [sys.executable, "-m", "nsysmoe", "capture", "--verify", str(node.output)],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert found.returncode == 1
    assert "complete    off/run-1" in found.stdout
    assert (node.output / "off" / "run-1" / "routing.parquet").is_file()
    assert "failed      failed/on-run-1: fail  EPLB" in found.stdout
    assert not (node.output / "on" / "run-1").exists()
    assert [run["status"] for run in node.manifest()["runs"]] == ["complete", "failed"]


def test_a_disk_that_is_full(node: Node) -> None:
    process = subprocess.run(
        node.argv(*PAIR),
        env=node.environment,
        capture_output=True,
        text=True,
        check=False,
        cwd=node.home,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048)),
    )
    assert process.returncode == 1
    assert len([line for line in process.stderr.splitlines() if line.startswith("Error: ")]) == 1
    assert not any(line.startswith("Traceback") for line in process.stderr.splitlines())
    assert node.living() == []
    assert not (node.output / "off").exists()


def test_under_nsys_only_the_workload_runs(node: Node) -> None:
    outside = {"NSYS_PROFILING_SESSION_ID": "7", "FAKE_NSYS": "export_fails"}
    done = node.capture(*PAIR, "--eplb", "on", **outside)
    assert done.returncode == 0, done.stderr
    folder = node.output / "on" / "run-1"
    assert {path.name for path in folder.iterdir()} == {"run.json", "routing.npz", "engine.log"}
    assert "start_profile" in [note[2] for note in node.notes]
    done = node.capture("--runs", "2", NSYS_PROFILING_SESSION_ID="7")
    assert done.returncode == 2
    assert "nsys is profiling already" in done.stderr


def test_a_dry_run_needs_nothing_and_its_script_does_the_same(node: Node) -> None:
    bare = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    printed = node.capture(*PAIR, "--vllm-version", "0.26.0", "--dry-run", **bare)
    assert printed.returncode == 0, printed.stderr
    assert not node.output.exists()
    done = subprocess.run(
        ["sh", "-c", printed.stdout], env=node.environment, check=False, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    found = nsysmoe.compare(node.output / "off", node.output / "on", quick=True)
    assert found.metric("launches").change == 0


def test_check_says_what_is_missing_and_starts_nothing(node: Node) -> None:
    done = node.capture("--check", FAKE_GPUS="0, NVIDIA H100, 4, 81559, 580.1")
    assert done.returncode == 1
    assert "fail  GPUs: 1, and 2 are needed" in done.stdout
    assert "nothing was started: GPUs" in done.stderr
    assert not node.output.exists()
    done = node.capture("--check", "--format", "json")
    assert done.returncode == 0
    assert {check["status"] for check in json.loads(done.stdout)} == {"ok", "warn"}
    assert node.notes == []


def test_prompts_of_a_file(node: Node) -> None:
    prompts = node.home / "prompts.jsonl"
    prompts.write_text('{"prompt_token_ids": [5, 6, 7], "max_tokens": 4}\n{"prompt": ""}\n')
    done = node.capture(*PAIR, "--prompts", str(prompts))
    assert done.returncode == 1
    assert "prompts.jsonl, line 2: needs a `prompt`" in done.stderr
    prompts.write_text('{"prompt_token_ids": [5, 6, 7], "max_tokens": 4}\n' * 3)
    assert node.capture(*PAIR, "--rearrange", "any", "--prompts", str(prompts)).returncode == 0
    record = json.loads((node.output / "off" / "run-1" / "run.json").read_text())
    assert [row["output_tokens"] for row in record["runs"][-1]["requests"]] == [4, 4, 4]


def test_a_server_under_load(node: Node) -> None:
    done = node.capture(*PAIR, "--mode", "server", "--port", port())
    assert done.returncode == 0, done.stderr
    record = json.loads((node.output / "on" / "run-1" / "run.json").read_text())
    summary = record["runs"][-1]["summary"]
    assert record["vllm"] == "0.26.0"
    # The server takes a millisecond a token.
    assert 0.0008 < summary["tpot_p50_s"] < 0.05
    assert summary["ttft_p50_s"] < summary["e2e_p50_s"]
    # By its workers' own counter, as offline.
    assert record["rearrangements"]["before"] >= 1
    assert record["rearrangements"]["inside"] == 0
    assert record["eplb_after"][0]["step"] > record["eplb_before"][0]["step"]
    lines = [note[2] for note in node.notes]
    last = len(lines) - 1 - lines[::-1].index("/start_profile")
    assert lines[last:] == ["/start_profile", *["complete 8"] * 4, "/stop_profile"]
    assert node.living() == []


@pytest.mark.parametrize(
    ("how", "more", "said"),
    [
        ("unhealthy", ("--start-timeout", "1"), "did not answer within 1 s"),
        # Whichever of the two is seen to end first.
        ("dies", (), "the load failed|the server ended with status"),
        ("no_profile", (), "/start_profile answered 404"),
        ("cut", (), "the stream ended before its last event"),
        ("crash@load", (), "the server ended with status 1"),
    ],
)
def test_servers_that_misbehave(how: str, more: tuple[str, ...], said: str, node: Node) -> None:
    done = node.capture(*PAIR, "--mode", "server", "--port", port(), *more, FAKE_VLLM=how)
    assert done.returncode == 1
    assert re.search(said, done.stderr)
    assert node.living() == []


def test_an_nsys_that_writes_when_the_server_has_ended(node: Node) -> None:
    done = node.capture(
        *PAIR, "--eplb", "off", "--mode", "server", "--port", port(), "--run-timeout", "3",
        FAKE_NSYS="late",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_only_our_own_processes_are_found(tmp_path: Path) -> None:
    sleep = (sys.executable, "-c", "import time; time.sleep(60)")
    with subprocess.Popen(sleep) as other:
        program = Program(Command(sleep), tmp_path / "log", "ours")
        assert {process.pid for process in marked("ours")} == {program.pid}
        assert other.pid not in {process.pid for process in family(program.pid)}
        assert program.status() is None
        assert sweep("ours/nobody") == 0
        program.end(1.0)
        assert marked("ours") == set()
        assert other.poll() is None
        other.kill()
