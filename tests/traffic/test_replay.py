"""Replays against a server over real sockets that does what each request says."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nsysmoe
from nsysmoe.analysis.experiments.traffic import summarize
from nsysmoe.bounded_files import read_json
from nsysmoe.capture.node.nsysmoe_workload import summary_of
from nsysmoe.errors import TrafficError
from nsysmoe.export.run_json import read_rounds
from nsysmoe.traffic.run import Options
from tests.cli.test_cli import run
from tests.conftest import ignored
from tests.traffic.conftest import Scripted, start, stop, write_log

# What a busy machine with two cores may add to a time; docs/production/replay.md states the
# jitter of an idle one.
BUSY_S = 0.25


def test_latencies_are_those_that_the_server_played(server: Scripted, tmp_path: Path) -> None:
    draw = random.Random(3)
    scripts = [
        {"ttft": draw.uniform(0.02, 0.2), "gap": draw.uniform(0.001, 0.02), "tokens": 8}
        for _ in range(60)
    ]
    log = write_log(tmp_path / "log.jsonl", scripts)
    found = nsysmoe.replay(log, tmp_path / "out", Options(server.url))
    assert found.requests == {
        "in_log": 60, "answered": 60, "failed": 0, "unsent": 0, "attempts": 60,
    }  # fmt: skip
    truth = server.answered()
    rows = {row["id"]: row for row in json.loads((tmp_path / "out/run.json").read_text())
            ["runs"][0]["requests"]}  # fmt: skip
    for number, script in enumerate(scripts):
        row, there = rows[f"q{number}"], truth[number]
        late = row["late_s"] + row["queued_s"]
        # The server saw the same waits, but for the way there and back.
        played = there["first"] - there["came"]
        assert played >= script["ttft"]
        assert late + played - 1e-3 <= row["ttft_s"] <= late + played + BUSY_S
        spaced = (there["last"] - there["first"]) / 7
        assert row["tpot_s"] == pytest.approx(spaced, abs=BUSY_S / 7)
        assert row["output_tokens"] == 8
    assert found.summary["ttft_p50_s"] == np.percentile(
        [row["ttft_s"] for row in rows.values()], 50
    )


def test_arrivals_keep_the_logs_gaps_and_the_record_tells_how_late(
    server: Scripted, tmp_path: Path
) -> None:
    log = write_log(tmp_path / "log.jsonl", [{"tokens": 1}] * 250, gap_s=0.004)
    started = time.perf_counter()
    nsysmoe.replay(log, tmp_path / "out", Options(server.url, speed=2.0))
    assert time.perf_counter() - started >= 249 * 0.002
    came = {number: row["came"] for number, row in server.answered().items()}
    rows = read_json(tmp_path / "out" / "run.json")["runs"][0]["requests"]
    sent = np.array([row["intended_s"] + row["late_s"] + row["queued_s"] for row in rows])
    assert [row["intended_s"] for row in rows] == pytest.approx(np.arange(250) * 0.002)
    seen = np.array([came[number] for number in range(250)])
    # Two clocks that agree: what the record calls late is when the server saw it come.
    way = (seen - seen[0]) - (sent - sent[0])
    assert np.median(np.abs(way - np.median(way))) < 0.05
    assert min(row["late_s"] for row in rows) >= 0


def test_a_slow_server_cannot_slow_the_sender_down(server: Scripted, tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.jsonl", [{"ttft": 0.5, "tokens": 1}] * 20)
    found = nsysmoe.replay(log, tmp_path / "out", Options(server.url))
    assert found.sender["held_back"] == 0
    assert found.summary["wall_s"] < 2.5, "in turn it would take 10 s"


def test_waiting_for_a_place_is_part_of_latency(server: Scripted, tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.jsonl", [{"ttft": 0.1, "tokens": 1}] * 10, gap_s=0.0)
    found = nsysmoe.replay(log, tmp_path / "out", Options(server.url, most_at_once=2))
    assert found.sender["held_back"] == 8
    assert found.sender["most_waiting"] == 8
    # The last of five turns waits for four others.
    assert found.summary["e2e_p99_s"] > 0.45
    assert found.sender["queued_max_s"] > 0.35
    assert [one.code for one in found.findings][-1] == "back_pressure"
    assert server.rows() != []


@pytest.mark.parametrize(("fault", "kind"), [
    ("503", "http_503"), ("reset", "disconnect"), ("truncate", "disconnect"),
    ("garbage", "stream"), ("event", "server"), ("hang", "stall"), ("silent", "stall"),
])  # fmt: skip
def test_errors_are_kept_by_kind(server: Scripted, tmp_path: Path, fault: str, kind: str) -> None:
    log = write_log(tmp_path / "log.jsonl", [{"fault": fault}, {}, {}])
    found = nsysmoe.replay(log, tmp_path / "out", Options(server.url, stall_s=0.5))
    assert [(one["kind"], one["requests"]) for one in found.errors] == [(kind, 1)]
    assert (found.requests["answered"], found.requests["failed"]) == (2, 1)
    (finding,) = [one for one in found.findings if one.code == "failed_requests"]
    assert "counted as never answered, the 99th of TTFT is unbounded" in finding.message


def test_a_request_that_takes_too_long_is_a_timeout(server: Scripted, tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.jsonl", [{"gap": 0.2, "tokens": 100}])
    found = nsysmoe.replay(log, tmp_path / "out", Options(server.url, timeout_s=0.5))
    assert [one["kind"] for one in found.errors] == ["timeout"]


def test_goodput_counts_what_met_every_limit(server: Scripted, tmp_path: Path) -> None:
    scripts: list[dict[str, Any]] = [{"ttft": 0.0}] * 6 + [{"ttft": 5.0}] * 3 + [{"fault": "503"}]
    log = write_log(tmp_path / "log.jsonl", scripts)
    found = run("replay", log, "--url", server.url, "-o", tmp_path / "out", "--goodput",
                "ttft:3000", "--goodput", "e2el:4000", "--format", "json")  # fmt: skip
    assert found.exit_code == 0, found.stderr
    told = json.loads(found.stdout)
    assert told["goodput"]["requests"] == 6
    assert told["goodput"]["ratio"] == 0.6
    assert told["goodput"]["requests_per_s"] == pytest.approx(6 / told["summary"]["wall_s"])


def test_hostile_answers_stay_text(server: Scripted, tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.jsonl", [{"fault": "503"}, {}])
    found = run("replay", log, "--url", server.url, "-o", tmp_path / "out")
    assert "over\\x1b[31mloaded" in found.stdout
    assert "\x1b[31m" not in found.stdout


def test_chats_keep_their_options_and_the_key_stays_secret(
    server: Scripted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_KEY", "sesame")
    log = tmp_path / "log.jsonl"
    messages = [{"role": "system", "content": "be"}, {"role": "user", "content": "{}"}]
    asked_for = {"model": "theirs", "messages": messages, "temperature": 0.7, "max_tokens": 3}
    log.write_text(json.dumps({"created": 1, "request": asked_for}))
    out = tmp_path / "out"
    options = Options(server.url, key_variable="SOME_KEY", ignore_eos=False)
    found = nsysmoe.replay(log, out, options)
    assert (found.requests["answered"], found.model) == (1, "scripted")
    (asked,) = server.asked()
    assert (asked["path"], asked["key"]) == ("/v1/chat/completions", "Bearer sesame")
    body = asked["body"]
    assert (body["messages"], body["temperature"], body["max_tokens"]) == (messages, 0.7, 3)
    assert "ignore_eos" not in body
    assert not any(b"sesame" in path.read_bytes() for path in out.iterdir())
    with pytest.raises(TrafficError, match="the variable NO_KEY is not set"):
        nsysmoe.replay(log, tmp_path / "other", Options(server.url, key_variable="NO_KEY"))


def test_without_times_a_rate_is_asked_for(server: Scripted, tmp_path: Path) -> None:
    log = tmp_path / "log.json"
    turns = [{"from": "human", "value": "{}"}, {"from": "gpt", "value": "a b c"}]
    log.write_text(json.dumps([{"conversations": turns}] * 5))
    asked = ("replay", log, "--url", server.url, "-o", tmp_path / "out")
    assert "give --rate" in run(*asked).stderr
    assert "give --output-tokens N, or --tokenizer" in run(*asked, "--rate", "100").stderr
    found = run(*asked, "--rate", "100", "--tokenizer", "whitespace", "--format", "json")
    assert json.loads(found.stdout)["requests"]["answered"] == 5
    assert [row["body"]["max_tokens"] for row in server.asked()] == [3] * 5


def command(server: Scripted, log: Path, out: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "nsysmoe", "replay", str(log), "--url", server.url,
            "-o", str(out), "--format", "json", *more]  # fmt: skip


def wait_for_lines(path: Path, count: int) -> None:
    limit = time.monotonic() + 60
    while not path.exists() or path.read_bytes().count(b"\n") < count:
        assert time.monotonic() < limit
        time.sleep(0.01)


def test_killed_and_gone_on_with_nothing_is_lost_or_sent_twice(
    server: Scripted, tmp_path: Path
) -> None:
    log = write_log(tmp_path / "log.jsonl", [{"tokens": 2}] * 120, gap_s=0.02)
    out = tmp_path / "out"
    with subprocess.Popen(command(server, log, out), stdout=subprocess.DEVNULL) as process:
        wait_for_lines(out / "requests.jsonl", 30)
        os.kill(process.pid, signal.SIGKILL)
    # A line that was being written.
    with (out / "requests.jsonl").open("ab") as journal:
        journal.write(b'{"number": 7, "id": "q')
    kept = len((out / "requests.jsonl").read_bytes().splitlines()) - 1
    second = subprocess.run(command(server, log, out), capture_output=True, text=True, check=True)
    told = json.loads(second.stdout)
    assert told["requests"]["answered"] == 120
    assert told["requests"]["attempts"] == 120
    numbers = [
        json.loads(line)["number"] for line in (out / "requests.jsonl").read_text().splitlines()
    ]
    assert sorted(numbers) == list(range(120))
    assert [one["ended"] for one in told["sessions"]] == ["killed", "done"]
    assert told["sessions"][1]["sent"] == 120 - kept
    assert "resumed" in [one["code"] for one in told["findings"]]
    third = subprocess.run(command(server, log, out), capture_output=True, text=True, check=True)
    assert json.loads(third.stdout)["sessions"] == told["sessions"]


def test_interrupted_says_so_and_keeps_what_ended(server: Scripted, tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.jsonl", [{"tokens": 1}] * 500, gap_s=0.05)
    out = tmp_path / "out"
    with subprocess.Popen(command(server, log, out), stdout=subprocess.PIPE, text=True) as process:
        wait_for_lines(out / "requests.jsonl", 5)
        process.send_signal(signal.SIGINT)
        told = json.loads(process.communicate(timeout=60)[0])
    assert process.returncode == 130
    assert told["requests"]["unsent"] > 0
    assert told["requests"]["answered"] >= 5
    assert "incomplete" in [one["code"] for one in told["findings"]]


def test_in_the_background_of_a_script_it_goes_on(server: Scripted, tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.jsonl", [{"tokens": 1}] * 60, gap_s=0.02)
    out = tmp_path / "out"
    with (
        ignored(signal.SIGINT),
        subprocess.Popen(command(server, log, out), stdout=subprocess.PIPE, text=True) as process,
    ):
        wait_for_lines(out / "requests.jsonl", 5)
        process.send_signal(signal.SIGINT)
        told = json.loads(process.communicate(timeout=60)[0])
    assert process.returncode == 0
    assert told["requests"]["answered"] == 60


def test_a_server_that_dies_midway_and_comes_back(server: Scripted, tmp_path: Path) -> None:
    scripts: list[dict[str, Any]] = [{}] * 10 + [{"fault": "die"}] + [{}] * 60
    log = write_log(tmp_path / "log.jsonl", scripts)
    out = tmp_path / "out"
    first = subprocess.run(
        command(server, log, out, "--give-up", "5"), capture_output=True, text=True, check=False
    )
    assert first.returncode == 1
    told = json.loads(first.stdout)
    assert told["sessions"][0]["ended"] == "away"
    assert told["requests"]["unsent"] > 0
    assert {one["kind"] for one in told["errors"]} <= {"connect", "disconnect"}
    # What made it die does not come again: the log is the same, its server is another.
    again = start(tmp_path / "again.jsonl", server.port)
    try:
        second = json.loads(
            subprocess.run(
                command(again, log, out), capture_output=True, text=True, check=True
            ).stdout
        )
        assert second["requests"]["unsent"] == 0
        assert second["requests"]["failed"] == told["requests"]["failed"]
        assert second["requests"]["attempts"] == 71
    finally:
        stop(again)


def test_going_on_before_the_server_is_back_sends_nothing(server: Scripted, tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.jsonl", [{}] * 5 + [{"fault": "die"}] + [{}] * 200)
    asked = ("replay", log, "--url", server.url, "-o", tmp_path / "out", "--give-up", "50")
    first = run(*asked)
    assert first.exit_code == 1
    assert "--retry-failed sends them again" in first.stdout
    before = (tmp_path / "out" / "requests.jsonl").read_bytes()
    second = run(*asked)
    assert (second.exit_code, second.stdout) == (1, "")
    assert "cannot be reached (Connection refused)" in second.stderr
    assert (tmp_path / "out" / "requests.jsonl").read_bytes() == before
    assert len(read_json(tmp_path / "out" / "manifest.json")["sessions"]) == 1


def test_failed_requests_can_be_sent_again_and_stay_counted(
    server: Scripted, tmp_path: Path
) -> None:
    log = write_log(tmp_path / "log.jsonl", [{}, {"fault": "503"}])
    options = Options(server.url)
    nsysmoe.replay(log, tmp_path / "out", options)
    again = nsysmoe.replay(log, tmp_path / "out", Options(server.url, retry_failed=True))
    assert again.requests["attempts"] == 3
    assert [(one["attempts"], one["requests"]) for one in again.errors] == [(2, 1)]


def test_run_json_is_what_captures_write(server: Scripted, tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.jsonl", [{"tokens": 1 + n % 3} for n in range(12)])
    nsysmoe.replay(log, tmp_path / "out", Options(server.url))
    told = read_json(tmp_path / "out" / "run.json")
    assert told["vllm"] == "0.33.0"
    assert told["started"] < told["ended"]
    (round_,) = read_rounds(tmp_path / "out" / "run.json")
    assert (len(round_.ttft_s), len(round_.tpot_s)) == (12, 8)
    record = read_json(tmp_path / "out" / "run.json")["runs"][0]
    theirs = summary_of(record["summary"]["wall_s"], record["requests"])
    assert {key: record["summary"][key] for key in theirs} == pytest.approx(theirs)


def test_sweeps_collect_replays_too(server: Scripted, tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.jsonl", [{"tokens": 3}] * 6 + [{"fault": "503"}])
    found = nsysmoe.replay(log, tmp_path / "out", Options(server.url))
    (row,) = json.loads(run("sweep", "collect", tmp_path / "out", "--format", "json").stdout)
    assert (row["requests"], row["failed"]) == (6, 1)
    assert row["ttft_p50_s"] == pytest.approx(found.summary["ttft_p50_s"])
    assert row["output_tokens_per_s"] == pytest.approx(found.summary["output_tok_per_s"])


def test_another_replay_does_not_mix(server: Scripted, tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.jsonl", [{}])
    nsysmoe.replay(log, tmp_path / "out", Options(server.url))
    with pytest.raises(TrafficError, match=r"other options \(speed; manifest.json has them\)"):
        nsysmoe.replay(log, tmp_path / "out", Options(server.url, speed=2.0))
    other = write_log(tmp_path / "other.jsonl", [{}, {}])
    with pytest.raises(TrafficError, match="a replay of another log"):
        nsysmoe.replay(other, tmp_path / "out", Options(server.url))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes").touch()
    with pytest.raises(TrafficError, match=r"holds something else \(notes\)"):
        nsysmoe.replay(log, tmp_path / "full", Options(server.url))


def test_no_server(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    log = write_log(tmp_path / "log.jsonl", [{}])
    found = run("replay", log, "--url", "http://127.0.0.1:9", "-o", tmp_path / "out")
    assert found.exit_code == 1
    assert "cannot be reached" in found.stderr
    assert found.stderr.count("\n") == 1


@pytest.mark.parametrize("url", ["127.0.0.1:80", "ftp://h", "http://me:secret@h:1", "http://h?a=1"])
def test_urls_that_are_refused(tmp_path: Path, url: str) -> None:
    log = write_log(tmp_path / "log.jsonl", [{}])
    found = run("replay", log, "--url", url, "-o", tmp_path / "out")
    assert found.exit_code == 1
    assert "secret" not in found.stderr
    assert not (tmp_path / "out").exists()


def test_a_summary_needs_a_replay(tmp_path: Path) -> None:
    with pytest.raises(nsysmoe.NsysmoeError, match="holds no replay"):
        summarize(tmp_path)
