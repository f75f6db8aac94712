"""A real Ray cluster of this machine, of several workers, one of them killed midway."""

from __future__ import annotations

import json
import logging
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.split import Clock, split
from nsysmoe.analysis.reading.gathering import Gathering, RunFiles, only_run
from nsysmoe.engines.on_ray import RayCluster
from nsysmoe.errors import InputError
from tests.conftest import DP2, ROOT
from tests.engines.tasks import Marked, doubled, killed_once, refused
from tests.engines.test_engines import kill_when_noted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from nsysmoe.resources import Limits

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'nsysmoe[ray]'")
pytestmark = pytest.mark.filterwarnings("ignore")

VIEWS = ("kernel_classes", "moe_cells", "matched_collectives", "device_time", "wait_ledger")


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster of three workers."""
    context = ray.init(
        num_cpus=3,
        object_store_memory=100 << 20,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    yield context.address_info["gcs_address"]
    ray.shutdown()


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run on two hosts whose clocks differ, a file each."""
    folder = tmp_path_factory.mktemp("nodes")
    split(
        DP2 / "eplb_on.sqlite",
        [folder / "a.sqlite", folder / "b.sqlite"],
        hosts=["n1", "n2"],
        clocks=[Clock(), Clock(5_000_000, 3_700_000, 20.0)],
        pid=77,
    )
    return folder


class KilledOnce:
    """An engine of which one worker is killed when its work is written and not yet told."""

    def __init__(self, engine: Any, folder: Path) -> None:
        self.engine, self.folder, self.killed = engine, folder, 0

    def share(self, jobs: int, limits: Limits) -> Limits:
        found: Limits = self.engine.share(jobs, limits)
        return found

    def map(self, task: Callable[[Any], Any], jobs: Sequence[Any]) -> list[Any]:
        self.killed += 1
        folder = self.folder / str(self.killed)
        folder.mkdir()
        killing = kill_when_noted(folder)
        marked = [Marked(str(folder), number, task, job) for number, job in enumerate(jobs)]
        found: list[Any] = self.engine.map(killed_once, marked)
        killing.join(1)
        assert not killing.is_alive()
        return found


def frames(run: RunFiles) -> list[list[tuple[Any, ...]]]:
    with run.opened() as trace:
        trace.read_ahead(*((view, None) for view in VIEWS))
        return [trace.frame(view).rows() for view in VIEWS]


def test_ray_returns_what_the_jobs_do(cluster: str) -> None:
    engine = RayCluster(cluster)
    assert engine.map(doubled, range(5)) == [0, 2, 4, 6, 8]
    with pytest.raises(InputError, match=r"^job 0 cannot be done; leave it out$"):
        engine.map(refused, range(3))


def test_one_process_many_and_ray_answer_alike_with_a_worker_killed(
    cluster: str, nodes: Path, tmp_path: Path
) -> None:
    here = only_run(nodes)
    expected = frames(here)
    assert frames(only_run(nodes, Gathering(engine="processes", workers=2))) == expected
    engine = KilledOnce(RayCluster(cluster), tmp_path)
    on_ray = RunFiles(here.path, here.members, engine, tmp_path / "scratch")
    assert frames(on_ray) == expected
    assert engine.killed == 2
    assert list((tmp_path / "scratch").iterdir()) == []


def test_the_command_runs_on_a_cluster(cluster: str, nodes: Path, tmp_path: Path) -> None:
    def asked(*more: str) -> Any:
        command = [sys.executable, "-m", "nsysmoe", "collectives", str(nodes), "--format", "json"]
        run = subprocess.run(
            [*command, *more],
            capture_output=True,
            check=True,
        )
        return json.loads(run.stdout)

    on_ray = asked(
        "--engine", "ray", "--ray-address", cluster, "--scratch", str(tmp_path / "shared")
    )
    assert on_ray == asked()
    assert {row["host"] for row in on_ray} == {"n1", "n2"}


def test_without_a_cluster_the_message_says_how_to_start_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)

    def no_cluster(**_: Any) -> None:
        raise ConnectionError("Could not find any running Ray instance.")

    monkeypatch.setattr(ray, "init", no_cluster)
    with pytest.raises(InputError, match=r"no Ray cluster at auto .*ray start --head"):
        RayCluster("auto").map(doubled, range(2))
    sys.stdout.write("still here")
    assert capsys.readouterr().out == "still here"


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_cluster_that_does_not_answer_is_one_line_at_once(
    monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        dead = f"{scheme}127.0.0.1:{server.getsockname()[1]}"
    with pytest.raises(InputError, match=r"no Ray cluster at .*does not answer.*ray start"):
        RayCluster(dead).map(doubled, range(2))
    # What was started last, and died since.
    monkeypatch.setenv("RAY_ADDRESS", dead)
    with pytest.raises(InputError, match=rf"no Ray cluster at auto \({dead} does not answer"):
        RayCluster("auto").map(doubled, range(2))


def test_a_cluster_that_refuses_may_want_a_token(
    cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused_by(**_: Any) -> None:
        raise ConnectionError("Failed to connect")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refused_by)
    with pytest.raises(InputError, match="set RAY_AUTH_MODE=token"):
        RayCluster(cluster).map(doubled, range(2))


def test_a_lost_worker_says_nothing_on_stdout(cluster: str, tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from nsysmoe.engines.on_ray import RayCluster\n"
        "from tests.engines.tasks import Marked, killed_once\n"
        "from tests.engines.test_engines import kill_when_noted\n"
        "folder = sys.argv[1]; kill_when_noted(Path(folder))\n"
        "jobs = [Marked(folder, number) for number in range(3)]\n"
        "print(RayCluster(sys.argv[2]).map(killed_once, jobs))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path), cluster],
        capture_output=True,
        check=True,
        cwd=ROOT,
        text=True,
    )
    assert run.stdout == "[0, 1, 2]\n"
    assert (tmp_path / "1.pid").exists()
