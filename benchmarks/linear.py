"""Whether cost grows with the kernels and no faster: CPU time and memory a million, by size.

    python -m benchmarks.linear --sizes 1000000 10000000 50000000 --data /big/disk

Each command once a size, nothing kept. A trace of 50,000,000 kernels is 6.5 GB, and `compare`
takes two.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.compare import BY_NAME, DATA, sqlite3_program, traces
from benchmarks.measure import run

_OF_TWO = ("compare --quick", "compare")
_OF_ONE = ("kernels", "summary")
_SQLITE = "sqlite3"


def _command(what: str, files: list[str], memory_limit: str) -> tuple[list[str], int]:
    """Return the command line and how many of the traces it reads."""
    if what == _SQLITE:
        return [sqlite3_program(), files[0], BY_NAME], 1
    inputs = files if what in _OF_TWO else files[:1]
    limits = ["--no-cache", "--memory-limit", memory_limit]
    return [sys.executable, "-m", "nsysmoe", *what.split(), *limits, *inputs], len(inputs)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the traces")
    parser.add_argument("--memory-limit", default="500MB")
    choices = [_SQLITE, *_OF_ONE, *_OF_TWO]
    parser.add_argument("--commands", nargs="+", choices=choices, default=choices)
    arguments = parser.parse_args()
    print(f"{'':16} {'kernels':>12} {'s':>8} {'CPU s':>8} {'a million':>9} {'peak MiB':>9}")
    for kernels in arguments.sizes:
        files = traces(kernels, arguments.data)
        for what in arguments.commands:
            command, inputs = _command(what, files, arguments.memory_limit)
            done = run([command])
            each = done.cpu_seconds / (inputs * kernels / 1e6)
            print(
                f"{what:16} {inputs} x {kernels:>8,} {done.seconds:8.1f} {done.cpu_seconds:8.1f} "
                f"{each:9.2f} {done.peak_mib:9.0f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
