"""The same questions to `nsys stats`, nsys-ai and the sqlite3 program, beside nsysmoe, in one run.

    python -m benchmarks.peers --nsys /opt/nsight/nsys --nsys-ai ~/.venvs/nsys-ai/bin/nsys-ai

Whoever is not on PATH and not named is said to be absent and left out. `--nsys-ai` may be given
again as NAME=PATH, for one whose DuckDB finds its extension. nsys-ai keeps a cache beside the
trace: each of its first calls gets a folder of its own, with a link to the trace in it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from benchmarks.compare import BY_NAME, DATA, traces
from benchmarks.measure import Run, run

_NSYSMOE = (sys.executable, "-m", "nsysmoe")


class Asked(NamedTuple):
    """A question to one program; {0} and {1} in its arguments stand for the traces."""

    question: str
    who: str
    command: tuple[str, ...]
    # Asked again where the first call has left its cache.
    again: bool = False


def _peers(nsys: str | None, ais: dict[str, str]) -> list[Asked]:
    ours = [
        Asked("kernels by name", "nsysmoe kernels", (*_NSYSMOE, "kernels", "--no-cache", "{0}")),
        Asked("two traces", "nsysmoe compare", (*_NSYSMOE, "compare", "--no-cache", "{0}", "{1}")),
        Asked(
            "two traces",
            "nsysmoe compare --quick",
            (*_NSYSMOE, "compare", "--quick", "--no-cache", "{0}", "{1}"),
        ),
    ]
    theirs = []
    if sqlite3 := shutil.which("sqlite3"):
        theirs.append(Asked("kernels by name", "sqlite3, group by", (sqlite3, "{0}", BY_NAME)))
    if nsys is not None:
        report = ("stats", "--report", "cuda_gpu_kern_sum", "--format", "csv", "{0}")
        theirs.append(Asked("kernels by name", "nsys stats", (nsys, *report)))
    for name, path in ais.items():
        theirs += [
            Asked("kernels by name", f"{name} summary", (path, "summary", "{0}"), again=True),
            Asked(
                "two traces",
                f"{name} diff",
                (path, "diff", "--no-ai", "{0}", "{1}"),
                again=True,
            ),
        ]
    return sorted([*ours, *theirs], key=lambda asked: asked.question)


def _measured(asked: Asked, files: list[str], folder: Path) -> list[Run]:
    """Ask in a folder that no other call has used; twice where the second is another story."""
    with tempfile.TemporaryDirectory(dir=folder) as own:
        links = [Path(own) / Path(file).name for file in files]
        for file, link in zip(files, links, strict=True):
            os.link(file, link)
        command = [part.format(*links) for part in asked.command]
        return [run([command]) for _ in range(1 + asked.again)]


def _named(given: list[str], default: str | None) -> dict[str, str]:
    """Return programs by name: NAME=PATH, or PATH alone."""
    found = {}
    for one in given or ([default] if default else []):
        name, _, path = one.rpartition("=")
        found[name or "nsys-ai"] = path
    for path in found.values():
        if shutil.which(path) is None:
            raise SystemExit(f"{path} is no program")
    return found


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kernels", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the traces")
    parser.add_argument("--nsys", help="the nsys program; the one on PATH where left out")
    parser.add_argument("--nsys-ai", action="append", default=[], metavar="[NAME=]PATH")
    arguments = parser.parse_args()
    nsys = arguments.nsys or shutil.which("nsys")
    ais = _named(arguments.nsys_ai, shutil.which("nsys-ai"))
    absent = {"nsys": nsys, "nsys-ai": ais, "sqlite3": shutil.which("sqlite3")}
    for name in (name for name, found in absent.items() if not found):
        print(f"{name} is absent: not on PATH, and not named")
    files = traces(arguments.kernels, arguments.data)
    taken: dict[tuple[str, str], list[Run]] = {}
    for _ in range(arguments.rounds):
        for asked in _peers(nsys, ais):
            runs = _measured(asked, files, arguments.data)
            for who, one in zip((asked.who, f"{asked.who}, again"), runs, strict=False):
                taken.setdefault((asked.question, who), []).append(one)
    print(f"{'':16} {'':28} {'s':>8} {'CPU s':>8} {'peak MiB':>9}")
    for (question, who), runs in taken.items():
        print(
            f"{question:16} {who:28} {statistics.median(r.seconds for r in runs):8.2f} "
            f"{statistics.median(r.cpu_seconds for r in runs):8.2f} "
            f"{max(r.peak_mib for r in runs):9.0f}"
        )


if __name__ == "__main__":
    main()
