"""What a run of many files costs: per file, and what putting them together adds; CPU seconds.

    python -m benchmarks.ranks                        # 4 ranks of 250,000 kernels
    python -m benchmarks.ranks --ranks 2 --kernels 1000000 --workers 1

Each rank is a file of its own, on a host of its own, whose clock is off. The question is the one
that takes most: all that `nsysmoe compare` reads of one side.
"""

from __future__ import annotations

import argparse
import random
import resource
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fixtures.builder import global_pid
from nsysmoe.analysis.reading.gathering import RunFiles, gathered
from nsysmoe.analysis.reading.run import read_run
from nsysmoe.engines.processes import Processes
from nsysmoe.trace.members import one_run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from nsysmoe.resources import Limits

DATA = Path(__file__).parent / "data"
_REAL = Path(__file__).parent.parent / "fixtures" / "dp2" / "eplb_off.sqlite"
_TABLES = ("CUPTI_ACTIVITY_KIND_KERNEL", "CUPTI_ACTIVITY_KIND_RUNTIME", "NVTX_EVENTS", "StringIds")
_MOE = "fused_moe_kernel"
_MEETS = "ncclDevKernel_AllReduce_Sum_bf16_RING_LL(ncclDevKernelArgsStorage<4096ul>)"
_SORTS = "void vllm::moe::moe_align_block_size_kernel<int>(int*)"
_REST = [f"void at::native::elementwise_kernel_{number}<4>(int)" for number in range(20)]
NAMES = [_MOE, _MEETS, _SORTS, *_REST, "cudaLaunchKernel_v7000"]
_CALL = len(NAMES) - 1
# A layer: sort, two products, fifteen others, two all-reduces.
_LAYER = [2, 0, *range(3, 10), 0, *range(10, 18), 1, 1]
_LAYERS = 32
_SPACING_NS = 15_000
_UTC_NS = 1_790_000_000_000_000_000


def rank_file(
    path: Path, rank: int, kernels: int, *, host: int | None = None, seed: int = 0
) -> Path:
    """Write one rank's file; equal arguments give equal rows.

    Args:
        path: The file; what is there already is left.
        rank: Number of the rank.
        kernels: How many it launches.
        host: Number of its host, whose clock it has; a host of its own where left out.
        seed: Another one gives other durations.
    """
    node = rank if host is None else host
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    with closing(sqlite3.connect(partial)) as database:
        tables(database)
        database.executemany("INSERT INTO StringIds VALUES (?, ?)", enumerate(NAMES))
        # Ranks of one host are processes of one machine.
        pid = global_pid(1000 if host is None else 1000 + rank)
        # A worse clock than nodes have: seconds of offset in all, 5 ppm of drift.
        kernel_events = kernel_rows(rank, kernels, pid, node=node, seed=seed)
        database.executemany(
            f"INSERT INTO CUPTI_ACTIVITY_KIND_KERNEL VALUES ({', '.join('?' * 28)})", kernel_events
        )
        database.executemany(
            "INSERT INTO CUPTI_ACTIVITY_KIND_RUNTIME VALUES (?, ?, 33, ?, ?, ?, 0, NULL)",
            (
                (at, at + 900, pid + 1000, number, _CALL)
                for number in range(kernels)
                for at in [_clock(node, number * _SPACING_NS - 60_000)]
            ),
        )
        database.executemany(
            'INSERT INTO NVTX_EVENTS (start, "end", eventType, text, globalTid, domainId) '
            "VALUES (?, ?, 59, ?, ?, 0)",
            _ranges(node, kernels, pid),
        )
        database.execute("CREATE TABLE TARGET_INFO_SYSTEM_ENV (name TEXT, value TEXT)")
        database.execute(
            "INSERT INTO TARGET_INFO_SYSTEM_ENV VALUES ('Hostname', ?)", (f"node{node}",)
        )
        database.execute("CREATE TABLE TARGET_INFO_SESSION_START_TIME (utcEpochNs INTEGER)")
        database.execute(
            "INSERT INTO TARGET_INFO_SESSION_START_TIME VALUES (?)", (_UTC_NS + 1_000_000 * node,)
        )
        database.commit()
    partial.replace(path)
    return path


def tables(database: sqlite3.Connection) -> None:
    """Create the tables of a real export."""
    with closing(sqlite3.connect(_REAL)) as real:
        for table in _TABLES:
            (ddl,) = real.execute("SELECT sql FROM sqlite_master WHERE name = ?", (table,))
            database.execute(ddl[0])


def _clock(node: int, true_ns: int) -> int:
    return true_ns + round(true_ns * 5e-6 * (node % 5))


def kernel_rows(
    rank: int, count: int, pid: int, *, node: int | None = None, seed: int = 0
) -> Iterator[tuple[object, ...]]:
    """Return rows of a rank's kernels, in the order of the table's columns.

    Args:
        rank: Number of the rank.
        count: How many.
        pid: Its process, as nsys serialises it.
        node: Number of the host whose clock it has; its own where left out.
        seed: Another one gives other durations.
    """
    node = rank if node is None else node
    chance = random.Random(rank + seed * 1_000_003)
    for number in range(count):
        name = _LAYER[number % len(_LAYER)]
        end = (number + 1) * _SPACING_NS
        took = chance.randrange(3_000, 14_000)
        start = _clock(node, end - took)
        yield (
            start, start + took, 0, 1, None, 7, number, pid, name, name, name,
            0, 0, 32, chance.randrange(1, 9999), 1, 1, 256, 1, 1, 0, 65536, 0, 0, number, 65536,
            None, 0,
        )  # fmt: skip


def _ranges(node: int, kernels: int, pid: int) -> Iterator[tuple[object, ...]]:
    a_step = len(_LAYER) * _LAYERS
    for number in range(kernels // 5):
        at = _clock(node, number * 5 * _SPACING_NS - 60_500)
        text, length = "schedule: allocate_slots", 3_000
        if number * 5 % a_step < 5:
            text, length = "execute_context_0(0)_generation_32(32)", (a_step - 1) * _SPACING_NS
        yield (at, at + length, text, pid + 1000)


class Timed:
    """An engine of processes that notes what the work took."""

    def __init__(self, workers: int) -> None:
        self._engine = Processes(workers)
        self.took: list[tuple[str, float, list[float]]] = []
        self.written = 0

    def share(self, jobs: int, limits: Limits) -> Limits:
        """Return what the engine does."""
        return self._engine.share(jobs, limits)

    def map(self, task: Callable[[Any], Any], jobs: Sequence[Any]) -> list[Any]:
        """Do the work and note what it took."""
        begin = time.perf_counter()
        found = self._engine.map(task, jobs)
        each = [getattr(one, "cpu_s", 0.0) for one in found]
        self.took.append((task.__name__, time.perf_counter() - begin, each))
        for one in found:
            paths = getattr(one, "files", {}).values()
            self.written += sum(Path(path).stat().st_size for path in paths)
        return found


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--kernels", type=int, default=250_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--data", type=Path, default=DATA)
    arguments = parser.parse_args()
    paths = [
        rank_file(
            arguments.data / f"rank{rank}-{arguments.kernels}.sqlite", rank, arguments.kernels
        )
        for rank in range(arguments.ranks)
    ]
    size = sum(path.stat().st_size for path in paths) / len(paths) / 2**20
    engine = Timed(arguments.workers)
    begin = time.process_time()
    (run,) = gathered(paths)
    looked = (time.process_time() - begin) / len(paths)
    timed = RunFiles(run.path, tuple(one_run(run.members)), engine)
    begin, wall = time.process_time(), time.perf_counter()
    read = read_run(timed, with_schedule=True)
    took, wall = time.process_time() - begin, time.perf_counter() - wall
    assert read.schedule is not None
    matched = int(read.schedule.collectives["is_matched"].sum())
    print(
        f"{len(paths)} files of {size:,.0f} MiB, {arguments.workers} workers, {matched:,} matched"
    )
    print(f"wall time, all of it                     {wall:8.2f} s")
    print(f"looking at a file                        {looked:8.2f} CPU s")
    for (_, _, each), what in zip(engine.took, ("first", "second"), strict=True):
        print(f"parts of a file, {what:6} round            {sum(each) / len(each):8.2f} CPU s")
    print(f"putting together, all files              {took:8.2f} CPU s")
    print(f"parts written                            {engine.written / 2**20:8.1f} MiB")
    for whose, what in (
        (resource.RUSAGE_CHILDREN, "worker"),
        (resource.RUSAGE_SELF, "this process"),
    ):
        peak = resource.getrusage(whose).ru_maxrss / 1024
        print(f"peak memory, {what:27} {peak:8.0f} MiB")


if __name__ == "__main__":
    main()
