"""Routing logs of a real size: what reading, balance, patterns and padding take."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.measure import run

_LAYERS, _EXPERTS, _TOP_K, _REQUESTS = 48, 128, 8, 512


def write(path: Path, choices: int) -> int:
    """Write requests of several lengths as vLLM returns them; return the choices."""
    random = np.random.default_rng(0)
    mean = choices // (_LAYERS * _TOP_K * _REQUESTS)
    routes = {}
    for number in range(_REQUESTS):
        shape = (int(random.integers(mean // 2, mean * 3 // 2)), _LAYERS, 1)
        # An odd stride meets no expert twice. The square makes low numbers popular.
        first = (random.random(shape) ** 2 * _EXPERTS).astype(np.int64)
        stride = 2 * random.integers(0, _EXPERTS // 2, shape) + 1
        chosen = (first + stride * np.arange(_TOP_K)) % _EXPERTS
        routes[f"r{number}"] = chosen.astype(np.uint8)
    np.savez(path, **routes)  # type: ignore[arg-type]
    return sum(route.size for route in routes.values())


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--choices", type=int, default=100_000_000)
    parser.add_argument("--folder", type=Path, help="for half a GB of files, removed at the end")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        log, table = Path(folder) / "log.npz", Path(folder) / "log.parquet"
        print(f"{write(log, arguments.choices):,} choices")
        program = (sys.executable, "-m", "nsysmoe", "routing")
        for what, command in {
            "load": ("load", str(log), "-o", str(table)),
            "balance": ("balance", str(table), "--gpus", "8"),
            "patterns": ("patterns", str(table)),
            "padding": ("padding", str(table)),
        }.items():
            taken = run([(*program, *command)])
            print(
                f"{what:9} {taken.seconds:8.1f} s, {taken.cpu_seconds:8.1f} s of processors, "
                f"{taken.peak_mib:6.0f} MiB",
                flush=True,
            )


if __name__ == "__main__":
    main()
