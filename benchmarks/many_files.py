"""Commands on runs of very many files: time, memory, and files open at once.

    python -m benchmarks.many_files                     # 1,024 files a side, 2,000 kernels each
    python -m benchmarks.many_files --files 4096 --commands summary

Ranks lie eight on a host, one file each, and meet in one communicator; every host has a clock of
its own. Each command is a process that may open no more files than a shell allows (`ulimit -n`).
"""

from __future__ import annotations

import argparse
import resource
import sys
import threading
from pathlib import Path

from benchmarks.measure import run
from benchmarks.ranks import DATA, rank_file

_OF_TWO = ("compare --quick", "compare")
_OF_ONE = ("summary", "waits", "collectives", "phases", "info")
_A_HOST = 8


def sides(files: int, kernels: int, folder: Path) -> list[str]:
    """Return the folders of two runs, writing their files where they are not there yet."""
    found = []
    for seed, side in enumerate(("off", "on")):
        own = folder / f"{side}-{files}x{kernels}"
        for rank in range(files):
            rank_file(own / f"{rank}.sqlite", rank, kernels, host=rank // _A_HOST, seed=seed)
        found.append(str(own))
    return found


class OpenFiles:
    """The most files that any process below this one had open, as far as looks tell."""

    def __init__(self) -> None:
        self.most = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> OpenFiles:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.05):
            for process in _below("self"):
                try:
                    count = len(list(Path(f"/proc/{process}/fd").iterdir()))
                except OSError:
                    continue
                self.most = max(self.most, count)


def _below(process: str) -> list[str]:
    """Return the processes that a process started, and those that they did."""
    found: list[str] = []
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            children = task.read_text().split()
        except OSError:
            continue
        found += children
        for child in children:
            found += _below(child)
    return found


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--files", type=int, default=1024, help="of each side")
    parser.add_argument("--kernels", type=int, default=2000, help="of each file")
    parser.add_argument("--open-files", type=int, default=1024, help="that a process may have open")
    parser.add_argument("--data", type=Path, default=DATA)
    choices = [*_OF_ONE, *_OF_TWO]
    parser.add_argument(
        "--commands", nargs="+", choices=choices, default=["summary", "waits", "compare --quick"]
    )
    parser.add_argument("--options", nargs=argparse.REMAINDER, default=[], help="for the command")
    arguments = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (arguments.open_files, arguments.open_files))
    folders = sides(arguments.files, arguments.kernels, arguments.data)
    print(f"{'':16} {'s':>8} {'CPU s':>8} {'peak MiB':>9} {'open files':>10}")
    for what in arguments.commands:
        inputs = folders if what in _OF_TWO else folders[:1]
        command = [sys.executable, "-m", "nsysmoe", *what.split(), "--no-cache"]
        with OpenFiles() as opened:
            try:
                done = run([[*command, *arguments.options, *inputs]])
            except SystemExit as refused:
                print(f"{what:16} {refused}", flush=True)
                continue
        print(
            f"{what:16} {done.seconds:8.1f} {done.cpu_seconds:8.1f} {done.peak_mib:9.0f} "
            f"{opened.most:10}",
            flush=True,
        )


if __name__ == "__main__":
    main()
