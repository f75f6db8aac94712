"""The command: alerts, one look, the exporter before a real Prometheus parser, profiles."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import nsysmoe
from nsysmoe.analysis.one_trace.structure import collectives
from nsysmoe.analysis.one_trace.waits import waits
from nsysmoe.errors import InputError, WatchError
from nsysmoe.watch.alerts import METRICS, Alerts, read_thresholds
from nsysmoe.watch.drops import read_capture
from nsysmoe.watch.profiles import Profiles, Timetable
from nsysmoe.watch.server import Server
from nsysmoe.watch.watcher import values_of
from tests.cli.test_cli import run
from tests.conftest import DP2, GRAPHS, ROOT, ignored
from tests.watch import texts

pytest.importorskip("prometheus_client", reason="pip install 'nsysmoe[watch]'")

PRODUCTION = ROOT / "docs" / "production"


@contextlib.contextmanager
def serving(answers: dict[str, tuple[int, str]]) -> Iterator[tuple[str, list[str]]]:
    """Serve fixed answers on a real socket; yield the address and what was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(f"{self.command} {self.path}")
            status, text = answers.get(self.path, (404, ""))
            self.send_response(status)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        do_POST = do_GET  # noqa: N815

        def log_message(self, format: str, *values: Any) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def once(*values: Any) -> tuple[int, dict[str, Any]]:
    found = run("watch", *values, "--once", "--format", "json")
    assert found.exit_code in {0, 3}, found.stderr
    return found.exit_code, json.loads(found.stdout)


def test_one_look_at_everything(tmp_path: Path) -> None:
    drops = tmp_path / "drops"
    drops.mkdir()
    shutil.copy(GRAPHS / "eplb_off.routed.npz", drops)
    shutil.copy(DP2 / "eplb_on.sqlite", drops)
    (drops / "broken.npz").write_bytes(b"PK\x03\x04")
    log = tmp_path / "engine.log"
    log.write_text(texts.eplb_line(10, 20, value=0.9))
    page = texts.metrics("0.33.0", ttft=[0.05] * 10)
    answers = {"/metrics": (200, page), "/version": (200, '{"version": "0.33.0"}')}
    with serving(answers) as (url, _):
        code, told = once("--url", url, "--log", log, "--drops", drops, "--gpus", 2)
    assert code == 0
    assert told["version"] == "0.33.0"
    assert told["server"]["running"] == 3.0
    assert told["eplb"]["definition"] == "over_ranks"
    assert told["routing"]["over"] == "devices"
    assert len(told["routing"]["layers"]) == 8
    assert told["capture"]["wait_ns"] > 0
    assert told["capture"]["transfer_ns"] > 0
    assert sum(told["capture"]["causes"].values()) == told["capture"]["wait_ns"]
    assert set(told["values"]) == set(METRICS)
    assert {one["kind"]: (one["up"], one["bad"]) for one in told["sources"]} == {
        "server": (True, 0), "log": (True, 0), "drops": (True, 1),
    }  # fmt: skip


def test_a_countdown_below_zero_is_an_alarm(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    log.write_text(texts.eplb_line(128, 0))
    assert once("--log", log)[0] == 0
    log.write_text(texts.eplb_line(128, 0) + texts.eplb_line(129, -1))
    code, told = once("--log", log)
    assert code == 3
    assert [one["name"] for one in told["alerts"] if one["state"] == "firing"] == ["eplb_died"]
    assert "2026" not in run("watch", "--log", log, "--once").stderr


def test_the_same_from_python(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    log.write_text(texts.eplb_line(129, -1))
    found = nsysmoe.snapshot(log=log, version="0.30.0")
    assert found.is_firing
    assert found.values["eplb_countdown"] == -1


def test_a_wrong_balancedness_raises_no_alert_but_a_right_one_does(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    log.write_text(texts.eplb_line(1, 9, value=0.3))
    for version, code in (("0.27.1", 0), ("0.28.0", 3)):
        found, told = once("--log", log, "--vllm-version", version)
        assert found == code
        assert told["values"]["logged_balancedness"] == 0.3
    page = run("watch", "--log", log, "--vllm-version", "0.27.1", "--once").stdout
    assert "says nothing of ranks" in page


def test_experts_are_not_held_to_what_devices_are(tmp_path: Path) -> None:
    shutil.copy(GRAPHS / "eplb_off.routed.npz", tmp_path)
    code, told = once("--drops", tmp_path)
    assert (code, told["routing"]["over"]) == (0, "experts")
    assert told["values"]["balancedness"] is None
    assert told["values"]["lowest_layer_balancedness"] is None
    told = once("--drops", tmp_path, "--gpus", 2)[1]
    assert told["values"]["balancedness"] == told["routing"]["balancedness"]


def test_a_source_that_is_down_is_an_alarm_and_no_failure(tmp_path: Path) -> None:
    code, told = once("--url", "http://127.0.0.1:9", "--log", tmp_path / "none.log")
    assert code == 3
    assert [one["up"] for one in told["sources"]] == [False, False]
    assert told["server"] is None


def test_hostile_names_do_not_steer_the_terminal(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    log.write_text(texts.eplb_line(1, 9, model="[red]\x1b[2Jx\u202e"))
    page = run("watch", "--log", log, "--once").stdout
    assert "[red]\\x1b[2Jx\\u202e" in page


THRESHOLD = '[[alert]]\nname = "a"\nmetric = "waiting"\nabove = 5\nfor_s = 10\n'


def test_alerts_wait_as_long_as_they_say(tmp_path: Path) -> None:
    path = tmp_path / "alerts.toml"
    path.write_text(THRESHOLD)
    alerts = Alerts(read_thresholds(path))

    def state(value: float | None, at: float) -> str:
        return alerts.judge({"waiting": value}, at)[0].state

    assert [state(5.0, 0), state(6.0, 1), state(6.0, 10), state(6.0, 11)] == [
        "ok", "pending", "pending", "firing",
    ]  # fmt: skip
    assert [state(None, 12), state(6.0, 13), state(4.0, 14), state(6.0, 30)] == [
        "unknown", "pending", "ok", "pending",
    ]  # fmt: skip
    assert alerts.judge({"waiting": 6.0}, 31, is_once=True)[0].state == "firing"


@pytest.mark.parametrize(("text", "why"), [
    ("x = 1", "must hold"),
    ("[[alert]]\nmetric = 'speed'\nabove = 1", "there is no metric 'speed'"),
    (THRESHOLD + "below = 1", "either above or below"), (THRESHOLD + THRESHOLD, "twice"),
    (THRESHOLD + "colour = 'red'", "there is no colour"), ("[[alert", "not TOML"),
    (THRESHOLD.replace("5", "nan"), "above must be a number"),
    (THRESHOLD + "severity = 'fatal'", "severity must be one of"),
    ("alert = [1]", "alert 1 is no table"), ("[[alert]]\nabove = 1", "metric is missing"),
    (THRESHOLD.replace("10", "-1"), "for_s must not be negative"),
])  # fmt: skip
def test_thresholds_that_are_none(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "alerts.toml"
    path.write_text(text)
    with pytest.raises(WatchError, match=why):
        read_thresholds(path)


def test_every_metric_of_the_shipped_thresholds_is_told() -> None:
    found = values_of((), None, None, None, None)
    assert set(found) == set(METRICS)
    assert {one.metric for one in read_thresholds(None)} <= set(METRICS)


def start_watch(*values: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "nsysmoe", "watch", *map(str, values)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip


def address(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    line = process.stderr.readline()
    found = re.search(r"http://[\d.:]+/metrics", line)
    assert found, line
    return found[0]


def fetch(url: str, until: str) -> str:
    limit = time.monotonic() + 30
    while True:
        with urllib.request.urlopen(url) as answer:
            text: str = answer.read().decode()
        if until in text or time.monotonic() > limit:
            return text
        time.sleep(0.05)


@pytest.fixture
def exported(tmp_path: Path) -> Iterator[str]:
    """What a running watch exports of everything that it can read."""
    drops = tmp_path / "drops"
    drops.mkdir()
    dump = GRAPHS / "eplb_off.routed.npz"
    dropped = ((dump, "code/1.npz"), (dump, "chat/2.npz"), (dump, "chat/3.npz"),
               (DP2 / "eplb_on.sqlite", "last.sqlite"))  # fmt: skip
    for age, (source, name) in enumerate(dropped):
        path = drops / name
        path.parent.mkdir(exist_ok=True)
        shutil.copy(source, path)
        os.utime(path, (1e9 + age, 1e9 + age))
    log = tmp_path / "engine.log"
    log.write_text(
        "INFO 11-21 23:05:30 [eplb_state.py:433] Rearranging experts ...\n"
        + texts.eplb_line(10, -3, value=0.9, model='a"b\\c')
    )
    answers = {"/metrics": (200, texts.metrics("0.33.0", ttft=[0.05] * 10))}
    with serving(answers) as (url, _):
        process = start_watch(
            "--url", url, "--log", log, "--drops", drops, "--listen", "0", "--interval", "100ms",
            "--vllm-version", "0.30", "--gpus", 2,
        )  # fmt: skip
        try:
            where = address(process)
            assert where.startswith("http://127.0.0.1:")
            fetch(where, "nsysmoe_routing_excess_drift ")
            fetch(where, "nsysmoe_capture_wait_seconds ")
            answers["/metrics"] = 200, texts.metrics("0.33.0", ttft=[0.05] * 20)
            fetch(where, "nsysmoe_ttft_seconds{")
            yield fetch(where, "nsysmoe_output_tokens_per_second ")
        finally:
            process.kill()
            process.communicate()


def test_the_exporter_before_a_real_parser(exported: str) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    samples = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(exported)
        for sample in family.samples
    }
    assert samples["nsysmoe_eplb_countdown_steps", ()] == -3
    logged = ("nsysmoe_logged_balancedness",
              (("definition", "over_ranks"), ("model", 'a"b\\c')))  # fmt: skip
    assert samples[logged] == 0.9
    firing = "nsysmoe_alert_firing", (("alert", "eplb_died"), ("severity", "critical"))
    assert samples[firing] == 1.0
    assert samples["nsysmoe_source_up", (("source", "server"),)] == 1.0
    assert samples["nsysmoe_ttft_seconds", (("percentile", "99"),)] > 0
    if promtool := shutil.which("promtool"):
        checked = subprocess.run(
            [promtool, "check", "metrics"], input=exported, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert checked.returncode == 0, checked.stderr


def test_the_dashboard_and_the_rules_ask_for_what_is_exported(exported: str) -> None:
    names = set(re.findall(r"^(nsysmoe_\w+)", exported, re.MULTILINE))
    dashboard = json.loads((PRODUCTION / "grafana-dashboard.json").read_text())
    asked = {target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())}
    rules = (PRODUCTION / "alert-rules.yml").read_text()
    wanted = set(re.findall(r"nsysmoe_\w+", " ".join(asked) + rules))
    assert wanted <= names
    assert len(wanted) > 10


@pytest.mark.skipif(shutil.which("promtool") is None, reason="Debian's package prometheus")
def test_promtool_accepts_the_rules_and_they_fire_as_they_say() -> None:
    for arguments in (["check", "rules", "alert-rules.yml"], ["test", "rules", "alert-tests.yml"]):
        found = subprocess.run(
            ["promtool", *arguments], cwd=PRODUCTION, capture_output=True, text=True, check=False
        )
        assert found.returncode == 0, found.stdout + found.stderr


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextlib.contextmanager
def prometheus(folder: Path, scraped: str) -> Iterator[str]:
    """Run Prometheus on what a watch exports, with the shipped rules; yield its address."""
    config = folder / "prometheus.yml"
    config.write_text(
        "global: {scrape_interval: 1s, evaluation_interval: 1s}\n"
        f"rule_files: [{PRODUCTION / 'alert-rules.yml'}]\n"
        "scrape_configs:\n- job_name: watch\n  static_configs: [{targets: ['"
        + scraped.removeprefix("http://").removesuffix("/metrics")
        + "']}]\n"
    )
    port = free_port()
    process = subprocess.Popen(
        ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}",
         f"--web.listen-address=127.0.0.1:{port}"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.communicate()


def asked_until(url: str, has_come: Callable[[Any], bool]) -> Any:
    limit, told = time.monotonic() + 60, None
    while time.monotonic() < limit:
        with contextlib.suppress(OSError), urllib.request.urlopen(url) as answer:
            told = json.loads(answer.read())["data"]
            if has_come(told):
                return told
        time.sleep(0.2)
    return pytest.fail(f"Prometheus told {told}")


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="Debian's package prometheus")
def test_prometheus_itself_scrapes_it_and_the_shipped_rule_fires(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    log.write_text(texts.eplb_line(10, -3, value=0.9))
    process = start_watch("--log", log, "--listen", "0", "--interval", "200ms")
    try:
        with prometheus(tmp_path, address(process)) as url:
            found = asked_until(
                f"{url}/api/v1/query?query=nsysmoe_eplb_countdown_steps",
                lambda it: bool(it["result"]),
            )
            assert found["result"][0]["value"][1] == "-3"
            told = asked_until(
                f"{url}/api/v1/alerts",
                lambda it: any(one["state"] == "firing" for one in it["alerts"]),
            )
            assert {one["labels"]["alertname"] for one in told["alerts"]} == {"EplbDied"}
    finally:
        process.kill()
        process.communicate()


def test_without_a_terminal_changes_of_alerts_are_lines(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    log.write_text(texts.eplb_line(10, -3))
    process = start_watch("--log", log, "--interval", "50ms")
    assert process.stdout is not None
    try:
        assert re.search("critical eplb_died firing", process.stdout.readline())
        with log.open("a") as file:
            file.write(texts.eplb_line(0, 128))
        assert re.search("critical eplb_died ok", process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


def drawn_in(rows: int, log: Path) -> bytes:
    """Return what a terminal of some rows is sent until it was drawn twice."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, 110, 0, 0))
    # What runs tests beside one another sets the two, and they go before the terminal's own size.
    around = {key: value for key, value in os.environ.items() if key not in {"COLUMNS", "LINES"}}
    with subprocess.Popen(
        [sys.executable, "-m", "nsysmoe", "watch", "--log", str(log), "--interval", "50ms"],
        stdout=theirs, stderr=subprocess.PIPE, cwd=ROOT, env={**around, "TERM": "xterm"},
    ) as process:  # fmt: skip
        os.close(theirs)
        drawn, limit = b"", time.monotonic() + 60
        # Drawn twice: the second time over the first.
        while drawn.count(b"1 firing: eplb_died") < 2 and time.monotonic() < limit:
            drawn += os.read(ours, 65536)
        process.send_signal(signal.SIGINT)
        while True:
            try:
                if not (more := os.read(ours, 65536)):
                    break
                drawn += more
            except OSError:
                break
        assert process.wait(30) == 130
    os.close(ours)
    return drawn


def test_a_terminal_is_drawn_anew_and_names_stay_text(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    log.write_text(texts.eplb_line(10, -3, model="[red]\x1b[2Jx"))
    drawn = drawn_in(50, log)
    assert b"[red]\\x1b[2Jx" in drawn
    assert b"\x1b[2Jx" not in drawn
    assert b"more lines" not in drawn
    assert b"queue_grows" not in drawn, "of alerts only what is not well"


def test_a_low_terminal_says_what_it_leaves_out(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    log.write_text(texts.load_line(0, 4, 1) + texts.eplb_line(10, -3))
    drawn = drawn_in(8, log)
    assert b"more lines" in drawn
    assert b"EPLB's countdown ran negative" in drawn


def test_an_address_that_is_taken() -> None:
    with serving({}) as (url, _):
        found = run("watch", "--url", url, "--listen", url.rpartition(":")[2])
    assert found.exit_code == 1
    assert "cannot be listened on" in found.stderr


@pytest.mark.parametrize("values", [
    [], ["--url", "http://h", "--profile-every", "10m"], ["--log", "x", "--interval", "fast"],
    ["--log", "x", "--listen", "here"], ["--log", "x", "--format", "json"],
    ["--url", "http://h", "--profile-every", "10m", "--profiles", "d/p", "--drops", "d"],
])  # fmt: skip
def test_wrong_usage(values: list[str]) -> None:
    assert run("watch", *values).exit_code == 2


def test_profiles_on_a_timetable_and_what_is_kept(tmp_path: Path) -> None:
    before = tmp_path / "mine.nsys-rep"
    before.touch()
    os.utime(before, (1e9, 1e9))
    slept: list[float] = []
    answers = {"/start_profile": (200, ""), "/stop_profile": (200, "")}
    with serving(answers) as (url, asked):
        profiles = Profiles(Server(url), Timetable(600, 2), tmp_path, slept.append)
        assert profiles.take(1000.0)
        assert not profiles.take(1500.0), "not yet"
        assert profiles.take(1600.0)
    assert asked == ["POST /start_profile", "POST /stop_profile"] * 2
    assert slept == [2, 2]
    made = [tmp_path / f"serve.{number}.nsys-rep" for number in (1, 2, 3)]
    for path, share in zip(made, (0.4, 0.6, 0.5), strict=True):
        path.touch()
        profiles.clear(path, share)
    profiles.clear(before, 0.0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.nsys-rep", made[1].name]


def test_a_running_watch_profiles_reads_and_clears_away(tmp_path: Path) -> None:
    """The server's nsys is played by a handler: it leaves a trace where a profile stops."""
    folder = tmp_path / "profiles"
    folder.mkdir()
    mine = folder / "mine.sqlite"
    shutil.copy(DP2 / "eplb_off.sqlite", mine)
    os.utime(mine, (1e9, 1e9))

    left: list[Path] = []

    class Played(dict[str, tuple[int, str]]):
        def get(self, path: str, default: Any = None) -> Any:
            if path == "/stop_profile":
                trace = folder / f"serve.{time.time_ns()}.sqlite"
                shutil.copyfile(DP2 / "eplb_on.sqlite", trace)
                left.append(trace)
            return super().get(path, default)

    answers = Played({"/start_profile": (200, ""), "/stop_profile": (200, "")})
    answers["/metrics"] = 200, texts.metrics("0.33.0")
    with serving(answers) as (url, asked):
        process = start_watch(
            "--url", url, "--profiles", folder, "--profile-every", "1s", "--for", "400ms",
            "--interval", "100ms", "--listen", "0",
        )  # fmt: skip
        try:
            found = fetch(address(process), "nsysmoe_capture_wait_seconds ")
            limit = time.monotonic() + 60
            while all(trace.exists() for trace in left):
                assert time.monotonic() < limit, "no trace was cleared away"
                time.sleep(0.05)
            while asked.count("POST /start_profile") == asked.count("POST /stop_profile"):
                assert time.monotonic() < limit
                time.sleep(0.005)
        finally:
            process.terminate()
            process.communicate()
    assert "nsysmoe_capture_wait_ratio" in found
    assert asked.count("POST /start_profile") == asked.count("POST /stop_profile"), (
        "ended within a profile, it stops it first"
    )
    assert mine.exists()
    assert process.returncode == 143


def test_a_server_that_takes_no_profiles_says_why(tmp_path: Path) -> None:
    with serving({"/metrics": (200, "")}) as (url, asked):
        process = start_watch(
            "--url", url, "--profiles", tmp_path, "--profile-every", "300ms", "--for", "100ms",
            "--interval", "50ms",
        )  # fmt: skip
        try:
            limit = time.monotonic() + 60
            while asked.count("POST /start_profile") < 3 and time.monotonic() < limit:
                time.sleep(0.05)
        finally:
            process.terminate()
            said = process.communicate()[1]
    assert said.count("--profiler-config.profiler cuda") == 1, said
    assert "POST /stop_profile" not in asked


def test_a_profile_is_stopped_whatever_happens(tmp_path: Path) -> None:
    def sleep(_: float) -> None:
        raise KeyboardInterrupt

    answers = {"/start_profile": (200, ""), "/stop_profile": (200, "")}
    with serving(answers) as (url, asked):
        profiles = Profiles(Server(url), Timetable(600, 2), tmp_path, sleep)
        with pytest.raises(KeyboardInterrupt):
            profiles.take(0.0)
    assert asked[-1] == "POST /stop_profile"


def test_a_start_without_an_answer_may_have_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nsysmoe.watch.server._PROFILE_S", 0.3)

    class Slow(dict[str, tuple[int, str]]):
        def get(self, path: str, default: Any = None) -> Any:
            if path == "/start_profile":
                time.sleep(1.0)
            return super().get(path, default)

    with serving(Slow({"/start_profile": (200, ""), "/stop_profile": (200, "")})) as (url, asked):
        profiles = Profiles(Server(url), Timetable(600, 2), tmp_path)
        assert not profiles.take(0.0)
    assert profiles.failed == "timed out"
    assert asked == ["POST /start_profile", "POST /stop_profile"]


def test_profiles_that_cannot_be_used_do_not_fill_the_disk(tmp_path: Path) -> None:
    """One may not be whole yet, and be read again; the last stays, to see why."""
    before = tmp_path / "mine.nsys-rep"
    before.touch()
    os.utime(before, (1e9, 1e9))
    with serving({"/start_profile": (200, ""), "/stop_profile": (200, "")}) as (url, _):
        profiles = Profiles(Server(url), Timetable(600, 2), tmp_path, lambda _: None)
        assert profiles.take(0.0)
    made = [tmp_path / f"serve.{number}.nsys-rep" for number in range(4)]
    for path in made:
        path.touch()
        profiles.give_up(path)
    profiles.give_up(before)
    profiles.clear_useless(time.time() + 30)
    assert all(path.exists() for path in made), "may still be written"
    profiles.clear(made[0], 0.5)
    profiles.clear_useless(time.time() + 100)
    assert sorted(tmp_path.iterdir()) == [before, made[0], made[3]]
    profiles.clear_useless(time.time() + 100)


def fake_nsys(folder: Path) -> tuple[Path, Path]:
    """Write an nsys that exports reports of ``as_report``, and return it and what it notes."""
    program, notes = folder / "nsys", folder / "exported"
    program.write_text(
        f"#!{sys.executable}\nimport sys\nfrom pathlib import Path\nwords = sys.argv[1:]\n"
        "if '-o' in words:\n"
        f"    Path('{notes}').open('a').write(Path(words[-1]).name + '\\n')\n"
        "    data = Path(words[-1]).read_bytes()[4:]\n"
        "    Path(words[words.index('-o') + 1]).write_bytes(data)\n"
    )
    program.chmod(0o755)
    return program, notes


def as_report(trace: Path) -> bytes:
    return b"NSYS" + trace.read_bytes()


def test_a_report_is_exported_once_and_nothing_of_it_is_kept(
    tmp_path: Path, cache_folder: Path
) -> None:
    program, notes = fake_nsys(tmp_path)
    report = tmp_path / "serve.1.nsys-rep"
    report.write_bytes(as_report(DP2 / "eplb_on.sqlite"))
    os.utime(report, (1e9, 1e9))
    found = read_capture(report, str(program))
    assert notes.read_text() == "serve.1.nsys-rep\n"
    rows = collectives(DP2 / "eplb_on.sqlite").rows
    assert found.transfer_ns == sum(row["transfer_ns"] or 0 for row in rows)
    assert found.wait_ns == waits(DP2 / "eplb_on.sqlite").whole["wait_ns"]
    assert not list(cache_folder.rglob("export*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_ended_in_a_long_profile_it_stops_it_at_once(
    tmp_path: Path, number: signal.Signals
) -> None:
    answers = {"/start_profile": (200, ""), "/stop_profile": (200, ""), "/metrics": (200, "")}
    with serving(answers) as (url, asked):
        process = start_watch(
            "--url", url, "--profiles", tmp_path, "--profile-every", "20m", "--for", "10m",
            "--interval", "50ms",
        )  # fmt: skip
        try:
            limit = time.monotonic() + 60
            while "POST /start_profile" not in asked and time.monotonic() < limit:
                time.sleep(0.05)
            process.send_signal(number)
            process.communicate(timeout=30)
        finally:
            process.kill()
            process.communicate()
    assert process.returncode == 128 + number
    assert asked.count("POST /stop_profile") == 1


def test_in_the_background_of_a_script_it_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    log.write_text(texts.eplb_line(10, -3))
    with ignored(signal.SIGINT):
        process = start_watch("--log", log, "--interval", "50ms")
    assert process.stdout is not None
    try:
        assert "firing" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        with log.open("a") as file:
            file.write(texts.eplb_line(0, 128))
        assert "eplb_died ok" in process.stdout.readline()
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("url", [
    "h:1", "ftp://h", "http://me:secret@h", "http://h:99999", "http://h:0", "http://[::1",
    "http://h?a=1",
])  # fmt: skip
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(InputError, match="--url") as found:
        Server(url)
    assert "secret" not in str(found.value)
