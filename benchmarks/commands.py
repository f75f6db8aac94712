"""Every command that reads whole traces, once each: time and memory, nothing kept between them.

Before each, the `sqlite3` program groups the same files by name: machines are not always equally
fast, not even one machine, and a ratio to work that never changes says what seconds do not.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.compare import BY_NAME, DATA, sqlite3_program, traces
from benchmarks.measure import run

_OF_ONE = (
    "summary", "imbalance", "collectives", "phases", "timeline", "waits", "stalls", "host",
    "whatif",
)  # fmt: skip
_OF_TWO = ("compare", "report")


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kernels", type=int, default=10_000_000)
    parser.add_argument("--memory-limit", default="500MB")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the traces")
    parser.add_argument("commands", nargs="*", default=[*_OF_TWO, *_OF_ONE])
    arguments = parser.parse_args()
    sqlite3 = sqlite3_program()
    files = traces(arguments.kernels, arguments.data)
    limits = ["--no-cache", "--memory-limit", arguments.memory_limit]
    print(f"{'':14} {'s':>8} {'CPU s':>8} {'peak MiB':>9} {'group by s':>10} {'ratio of CPU':>12}")
    for name in arguments.commands:
        inputs = files if name in _OF_TWO else files[:1]
        more = ["--format", "html"] if name == "report" else []
        ruler = run([[sqlite3, path, BY_NAME] for path in inputs])
        try:
            done = run([[sys.executable, "-m", "nsysmoe", name, *limits, *more, *inputs]])
        except SystemExit as refused:
            # A generated trace has no waiting to explain, for one; the others still count.
            print(f"{name:14} {refused}", flush=True)
            continue
        print(
            f"{name:14} {done.seconds:8.1f} {done.cpu_seconds:8.1f} {done.peak_mib:9.0f} "
            f"{ruler.seconds:10.1f} {done.cpu_seconds / ruler.cpu_seconds:12.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
