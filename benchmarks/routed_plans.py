"""Plans from 100,000,000 choices of tokens: seconds, and the peak of memory.

Each step runs in a process of its own, whose peak of memory is what the kernel says it was.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nsysmoe.analysis.placing.routed_placement import plan_routed
from nsysmoe.analysis.routing.routing_load import load
from nsysmoe.placement.cluster import Cluster

if TYPE_CHECKING:
    from collections.abc import Callable

_LAYERS, _EXPERTS, _TOP_K = 48, 128, 8
_BATCH = 256


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000_000)
    parser.add_argument("--folder", type=Path, default=Path("benchmarks/data"))
    parser.add_argument("--keep", action="store_true", help="keep what was written")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    tokens = arguments.rows // (_LAYERS * _TOP_K)
    raw, loaded = arguments.folder / "routes.npz", arguments.folder / "routes.parquet"
    ways: dict[str, Callable[[], object]] = {
        "write returned experts": lambda: _write(raw, tokens),
        "routing load": lambda: _load(raw, loaded),
        "placement plan --algorithm best": lambda: _plan(loaded, "best", 1),
        "placement plan --algorithm locality": lambda: _plan(loaded, "locality", 4),
    }
    print(f"{tokens * _LAYERS * _TOP_K:,} choices of {tokens:,} tokens")
    try:
        for name, way in ways.items():
            seconds, busy, peak = _apart(way)
            print(
                f"{name}: {seconds:.1f} s ({busy:.1f} s of processors), {peak / 1e9:.2f} GB at most"
            )
    finally:
        if not arguments.keep:
            raw.unlink(missing_ok=True)
            loaded.unlink(missing_ok=True)


def _apart(way: Callable[[], object]) -> tuple[float, float, int]:
    """Run in a process of its own; return seconds, those of processors, and peak bytes."""
    start = time.perf_counter()
    child = os.fork()
    if not child:
        try:
            way()
        except BaseException as error:  # noqa: BLE001 - said, and then the process ends
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            os._exit(1)
        os._exit(0)
    _, status, used = os.wait4(child, 0)
    if status:
        sys.exit("a step failed")
    peak = used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return time.perf_counter() - start, used.ru_utime + used.ru_stime, peak


def _write(path: Path, tokens: int) -> None:
    """Write arrays [tokens, layers, k] of requests whose kinds have experts that they prefer."""
    random = np.random.default_rng(0)
    requests = -(-tokens // _BATCH)
    kinds = random.normal(0, 1, (8, _LAYERS, _EXPERTS))
    parts = {}
    for number in range(requests):
        length = min(_BATCH, tokens - number * _BATCH)
        scores = kinds[number % 8] + random.gumbel(size=(length, _LAYERS, _EXPERTS))
        chosen = scores.argpartition(-_TOP_K, axis=2)[:, :, -_TOP_K:]
        parts[f"r{number}"] = chosen.astype(np.uint8)
    np.savez(path, **parts)


def _load(raw: Path, loaded: Path) -> None:
    load([raw], loaded)


def _plan(path: Path, algorithm: str, nodes: int) -> None:
    plan_routed(path, Cluster(8, 128, nodes), algorithm)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
