"""The command on a cluster that was started by itself, found by ``--ray-address auto``."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.split import Clock, split
from tests.conftest import DP2, ROOT
from tests.waiting import becomes

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest.importorskip("ray", reason="Ray is not installed: pip install 'nsysmoe[ray]'")
pytestmark = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="workers of Ray are found through /proc"
)
_BUSY = b"ray::outcome"


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run on two hosts whose clocks differ, a file each."""
    folder = tmp_path_factory.mktemp("nodes")
    clocks = [Clock(), Clock(5_000_000, 3_700_000, 20.0)]
    split(
        DP2 / "eplb_on.sqlite",
        [folder / "a.sqlite", folder / "b.sqlite"],
        hosts=["n1", "n2"],
        clocks=clocks,
    )
    return folder


@pytest.fixture(scope="module")
def head() -> Iterator[tuple[int, dict[str, str]]]:
    """The process of ``ray start --head``, of three workers, and what finds its cluster."""
    # Ray's sockets lie below it, whose names may not be long; ``auto`` looks there first.
    place = tempfile.mkdtemp(prefix="r", dir="/tmp")
    environment = {**os.environ, "RAY_TMPDIR": place, "RAY_USAGE_STATS_ENABLED": "0"}
    environment.pop("RAY_ADDRESS", None)
    command = ["start", "--head", "--num-cpus=3", "--port=0", "--include-dashboard=false",
               "--object-store-memory=100000000", "--disable-usage-stats", "--block"]  # fmt: skip
    with (Path(place) / "log").open("wb") as log:
        started = subprocess.Popen(
            [sys.executable, "-m", "ray.scripts.scripts", *command],
            stdout=log,
            stderr=log,
            env=environment,
            # Its workers import nsysmoe and the tests from here.
            cwd=ROOT,
        )
    found = Path(place) / "ray" / "ray_current_cluster"
    try:
        until = time.monotonic() + 90
        while not found.exists() and started.poll() is None and time.monotonic() < until:
            time.sleep(0.1)
        assert found.exists(), (Path(place) / "log").read_text()
        yield started.pid, environment
    finally:
        children = descendants(started.pid)
        started.terminate()
        try:
            started.wait(30)
        except subprocess.TimeoutExpired:
            started.kill()
        for child in children:
            if is_running(child):
                os.kill(child, signal.SIGKILL)
        shutil.rmtree(place, ignore_errors=True)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def descendants(pid: int) -> list[int]:
    """Return the processes that a process started, and those that these did."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            # Behind the name, which may hold anything but the last bracket.
            parent = int(entry.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        parents.setdefault(parent, []).append(int(entry.parent.name))
    found = [pid]
    for one in found:
        found += parents.get(one, [])
    return found[1:]


def titles(pids: list[int]) -> dict[int, bytes]:
    found = {}
    for pid in pids:
        with suppress(OSError):
            found[pid] = Path(f"/proc/{pid}/cmdline").read_bytes()
    return found


@contextmanager
def one_worker_killed(head: int) -> Iterator[list[int]]:
    """Kill the first worker of the cluster that is seen at work on a file."""
    killed: list[int] = []
    is_over = Event()

    def watch() -> None:
        while not is_over.is_set() and not killed:
            if found := busy(head):
                os.kill(found[0], signal.SIGKILL)
                killed.append(found[0])
            time.sleep(0.01)

    watching = Thread(target=watch, daemon=True)
    watching.start()
    try:
        yield killed
    finally:
        is_over.set()
        watching.join(10)


def asked(nodes: Path, environment: dict[str, str], *more: str) -> Any:
    command = [sys.executable, "-m", "nsysmoe", "waits", str(nodes), "--by", "rank", "--no-cache"]
    run = subprocess.run(
        [*command, "--format", "json", *more],
        capture_output=True,
        check=False,
        cwd=ROOT,
        env=environment,
        timeout=240,
    )
    assert run.returncode == 0, run.stderr.decode()
    return json.loads(run.stdout)


def test_auto_finds_the_cluster_and_a_worker_that_is_killed_costs_no_answer(
    nodes: Path, head: tuple[int, dict[str, str]], tmp_path: Path
) -> None:
    pid, environment = head
    expected = asked(nodes, environment, "--engine", "here")
    on_ray = ("--engine", "ray", "--ray-address", "auto", "--scratch", str(tmp_path / "shared"))
    with one_worker_killed(pid) as killed:
        assert asked(nodes, environment, *on_ray) == expected
    assert killed
    assert asked(nodes, environment, *on_ray) == expected
    assert list((tmp_path / "shared").iterdir()) == []
    assert {row["late_host"] for row in expected} == {"n1", "n2"}


def busy(head: int) -> list[int]:
    return [pid for pid, title in titles(descendants(head)).items() if _BUSY in title]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("asks", ["main thread", "threads"])
def test_a_signal_ends_the_command_and_its_work_on_the_cluster(
    nodes: Path,
    head: tuple[int, dict[str, str]],
    tmp_path: Path,
    asks: str,
    number: signal.Signals,
) -> None:
    """Ray puts handlers of its own in the place of ours, and knows nothing of a waiting thread."""
    pid, environment = head
    for name in ("temporary", "cache", "scratch"):
        (tmp_path / name).mkdir()
    own = {"TMPDIR": "temporary", "NSYSMOE_CACHE_DIR": "cache", "READY": "ready"}
    inputs = [str(nodes)] if asks == "main thread" else [str(nodes), str(nodes)]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.cli.stuck", "ray",
         "collectives" if asks == "main thread" else "compare", *inputs, "--engine", "ray",
         "--scratch", str(tmp_path / "scratch"), "-o", str(tmp_path / "out.json")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**environment, **{name: str(tmp_path / place) for name, place in own.items()}},
    )  # fmt: skip
    try:
        until = time.monotonic() + 60
        while not busy(pid) or not (tmp_path / "begun").exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < until
            time.sleep(0.05)
        process.send_signal(number)
        said = process.communicate(timeout=20)
    finally:
        process.kill()
        process.communicate()
    word, code = ("Interrupted", 130) if number == signal.SIGINT else ("Terminated", 143)
    assert (process.returncode, said) == (code, ("", f"{word}\n"))
    assert becomes(lambda: not busy(pid), limit_s=20)
    left = {path.name for path in tmp_path.rglob("*")}
    assert left == {"temporary", "cache", "scratch", "begun"}
