"""Writes a large trace in the shape of vLLM's: 8 GPUs, a process each, API and NVTX rows.

    python -m benchmarks.generate benchmarks/data/off.sqlite --kernels 1000000 --seed 1

Of ten kernels one is the experts', two communicate, seven are the rest of a model, under the
64 names of a real vLLM run; one API call a kernel, one NVTX range for every five. Collectives
pair: all ranks launch the same ones in the same order, come one after the other, and leave
together.
"""

from __future__ import annotations

import argparse
import random
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from fixtures.builder import global_pid

if TYPE_CHECKING:
    from collections.abc import Iterator

_GPUS = 8
_REAL = Path(__file__).parent.parent / "fixtures" / "dp2" / "eplb_off.sqlite"
_TABLES = ("CUPTI_ACTIVITY_KIND_KERNEL", "CUPTI_ACTIVITY_KIND_RUNTIME", "NVTX_EVENTS", "StringIds")


def generate(path: Path, kernels: int, seed: int) -> None:
    """Write a trace; equal arguments give equal rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    with closing(sqlite3.connect(_REAL)) as real, closing(sqlite3.connect(partial)) as database:
        for table in _TABLES:
            (ddl,) = real.execute("SELECT sql FROM sqlite_master WHERE name = ?", (table,))
            database.execute(ddl[0])
        names = [row[0] for row in real.execute(
            "SELECT DISTINCT value FROM StringIds JOIN CUPTI_ACTIVITY_KIND_KERNEL "
            "ON id = demangledName"
        )]  # fmt: skip
        names += ["cudaLaunchKernel_v7000"]
        _insert(database, "StringIds", enumerate(names))
        _insert(database, "CUPTI_ACTIVITY_KIND_KERNEL", _kernels(names, kernels, seed))
        _insert(database, "CUPTI_ACTIVITY_KIND_RUNTIME", _calls(len(names) - 1, kernels))
        _insert_ranges(database, kernels // 5)
        database.execute("CREATE TABLE META_DATA_EXPORT (name TEXT NOT NULL, value TEXT)")
        rows = [("EXPORT_PRODUCT_VERSION", "2025.3.2.0"), ("EXPORT_SCHEMA_VERSION", "3.20.3")]
        _insert(database, "META_DATA_EXPORT", iter(rows))
        database.commit()
    partial.replace(path)


def _kernels(names: list[str], count: int, seed: int) -> Iterator[tuple[object, ...]]:
    chance = random.Random(seed)
    moe = names.index("fused_moe_kernel")
    nccl = [n for n, name in enumerate(names) if name.startswith("nccl")]
    others = [n for n in range(len(names) - 1) if n != moe and n not in nccl]
    start = 0
    for first in range(0, count, _GPUS):
        numbers = range(first, min(first + _GPUS, count))
        starts = []
        for _ in numbers:
            start += chance.randrange(500, 3000)
            starts.append(start)
        # No GPU is always the last.
        gpus = chance.sample(range(len(numbers)), len(numbers))
        place = first // _GPUS % 10
        # Collectives are of all ranks: a last round without some of them has none.
        if place in {1, 2} and len(numbers) == _GPUS:
            drawn = _meeting(chance, nccl, starts)
        else:
            drawn = [_alone(chance, moe if place == 0 else None, others, at) for at in starts]
        for gpu, began, (name, end) in zip(gpus, starts, drawn, strict=True):
            number = first + gpu
            yield (
                began, end, gpu, 1, None, 7, number, global_pid(1000 + gpu), name, name, name,
                0, 0, 32, chance.randrange(1, 9999), 1, 1, 256, 1, 1, 0, 65536, 0, 0, number, 65536,
                None, 0,
            )  # fmt: skip


def _meeting(chance: random.Random, names: list[int], starts: list[int]) -> list[tuple[int, int]]:
    """Return name and end of a collective on each rank: it ends when the last has had its share."""
    name = chance.choice(names)
    end = starts[-1] + chance.randrange(1000, 400_000)
    return [(name, end + chance.randrange(200)) for _ in starts]


def _alone(
    chance: random.Random, name: int | None, others: list[int], start: int
) -> tuple[int, int]:
    """Return name and end of a kernel that waits for no other: of no name, one of the others."""
    if name is None:
        return chance.choice(others), start + chance.randrange(1000, 30_000)
    return name, start + chance.randrange(1000, 400_000)


def _calls(name: int, count: int) -> Iterator[tuple[object, ...]]:
    for number in range(count):
        pid = 1000 + number % _GPUS
        start = number * 1500
        yield (start, start + 900, 33, global_pid(pid) + pid, number, name, 0, None)


def _insert_ranges(database: sqlite3.Connection, count: int) -> None:
    """Insert ranges of each process: of eighty one is a step's, as in a real run."""
    database.executemany(
        'INSERT INTO NVTX_EVENTS (start, "end", eventType, text, globalTid, domainId) '
        "VALUES (?, ?, 59, ?, ?, 0)",
        (
            (start, start + length, text, global_pid(pid) + pid)
            for number in range(count)
            for pid in [1000 + number % _GPUS]
            for start, length, text in [_range(number)]
        ),
    )


def _range(number: int) -> tuple[int, int, str]:
    start = number * 7500
    if number // _GPUS % 80:
        return start, 4000, "schedule: allocate_slots"
    # As long as the eighty ranges of its process.
    return start, 79 * _GPUS * 7500, "execute_context_0(0)_generation_32(32)"


def _insert(database: sqlite3.Connection, table: str, rows: Iterator[tuple[object, ...]]) -> None:
    columns = len(database.execute(f"PRAGMA table_info({table})").fetchall())
    marks = ", ".join("?" * columns)
    database.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--kernels", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    generate(arguments.path, arguments.kernels, arguments.seed)
