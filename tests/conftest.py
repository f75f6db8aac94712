"""What tests share: paths to the real pair, and small traces built by hand."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from fixtures.builder import TraceBuilder
from nsysmoe.cache import identity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Tests say what is right, not how fast: machines are shared.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

ROOT = Path(__file__).parent.parent
DP2 = ROOT / "fixtures" / "dp2"
GRAPHS = DP2.parent / "graphs"
ENGINES = DP2.parent / "engines"
REPLICAS = ROOT / "fixtures" / "replicas"
FOUR_GPUS = ROOT / "fixtures" / "groups" / "four_gpus.sqlite"
TABLE1 = ROOT / "fixtures" / "table1"
PAIRS = ROOT / "fixtures" / "pairs"


@contextmanager
def ignored(*numbers: signal.Signals) -> Iterator[None]:
    """Start processes as nohup, or a script in its background, does: they ignore signals."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep neighbours in one process under ``-n``: what one test has read the next one finds."""
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log) if config.getvalue("dist") == "load" else None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Take one process more than there are cores: some tests wait for programs and sockets."""
    return (os.cpu_count() or 1) + 1


@pytest.fixture(scope="session", autouse=True)
def _heard() -> Iterator[None]:
    """Let what tests start hear SIGINT, which tests send.

    A shell without job control has its background jobs ignore it, and all that these start
    inherits that.
    """
    before = signal.getsignal(signal.SIGINT)
    if before == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session", autouse=True)
def _kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One cache for all tests of all processes, as a user has one: fixtures are read once.

    Of the session, so that what a module shares is kept there too and not in the user's own.
    What tests write is not kept, being younger than two seconds (``cache.identity``).
    """
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NSYSMOE_CACHE_DIR", str(folder / "common-cache"))
        yield


@pytest.fixture
def cache_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, also for the processes that it starts.

    For tests of the cache, and for those that need the reading itself to happen.
    """
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("NSYSMOE_CACHE_DIR", str(folder))
    return folder


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read of files that a test wrote just now is kept too, for the tests after it.

    For modules that write a trace once and ask it often. A file must not change once it was asked:
    within a tick of the clock nobody would see that.
    """
    monkeypatch.setattr(identity, "SETTLED_NS", 0)


@pytest.fixture
def off() -> Path:
    """The real pair's baseline."""
    return DP2 / "eplb_off.sqlite"


@pytest.fixture
def on() -> Path:
    """The real pair's candidate."""
    return DP2 / "eplb_on.sqlite"


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A trace of ``small_trace`` of the test's own, that it may change."""
    return small_trace().write(tmp_path / "small.sqlite")


def small_trace() -> TraceBuilder:
    """Two GPUs, two processes, three kernels of each kind that matters, sums easy to see."""
    build = TraceBuilder()
    for device, pid in ((0, 1000), (1, 2000)):
        build.gpu(device).process(pid, "python3").device(pid, device, device)
        build.kernel("fused_moe_kernel", 100, 10 + device, device=device, pid=pid)
        build.kernel("fused_moe_kernel", 200, 30, device=device, pid=pid)
        build.kernel("ncclDevKernel_AllReduce_Sum_u32_RING_LL(x)", 300, 5, device=device, pid=pid)
        build.kernel("ncclDevKernel_AllReduce_Sum_bf16_RING_LL(x)", 400, 7, device=device, pid=pid)
        build.kernel("ncclDevKernel_AllGather_RING_LL(x)", 500, 11, device=device, pid=pid)
        build.kernel("void vllm::rms_norm_kernel<float>(float*)", 600, 2, device=device, pid=pid)
    return build


@pytest.fixture
def written(tmp_path: Path) -> Callable[[TraceBuilder], Path]:
    """Write a builder's trace under a name of its own and return the path."""
    count = 0

    def write(build: TraceBuilder) -> Path:
        nonlocal count
        count += 1
        return build.write(tmp_path / f"trace{count}.sqlite")

    return write
