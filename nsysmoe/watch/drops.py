"""A folder into which dumps of routing and short captures are dropped: each file is read once."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nsysmoe.errors import NsysmoeError
from nsysmoe.resources import using

if TYPE_CHECKING:
    from pathlib import Path

    from nsysmoe.watch.routing import Dump

TRACES = {".sqlite", ".nsys-rep", ".qdrep"}
_ROUTING = {".npz", ".npy", ".jsonl", ".json", ".pt", ".csv", ".parquet"}
# Records that lie beside routing and are none.
_NOT_ROUTING = {"run.json", "manifest.json", "config.json"}
# A file that was written to within that time may still grow.
_SETTLE_S = 1.0
_MOST_FILES = 10_000


@dataclass(frozen=True)
class Captured:
    """What a short capture says of its collectives: waiting by cause, and transfer, ns."""

    source: str
    wait_ns: int
    transfer_ns: int
    collectives: int
    causes: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values, with the share of communication that is waiting."""
        both = self.wait_ns + self.transfer_ns
        return {
            "source": self.source,
            "wait_ns": self.wait_ns,
            "transfer_ns": self.transfer_ns,
            "wait_share": self.wait_ns / both if both else None,
            "collectives": self.collectives,
            "causes": self.causes,
        }


class Drops:
    """The files of a folder that have not been read yet."""

    def __init__(self, root: Path) -> None:
        self.root = root
        # By name, so that a file that is written anew is read anew: inode, size and time.
        self._seen: dict[Path, tuple[int, int, int]] = {}

    def fresh(self, *, settle_s: float = _SETTLE_S) -> list[Path]:
        """Return the files that came or changed since, oldest first, and are at rest.

        Raises:
            OSError: The folder cannot be read.
        """
        found, now, present = [], time.time(), {}
        for path in self._candidates():
            try:
                told = path.stat()
            except OSError:
                # Taken away meanwhile.
                continue
            mark = told.st_ino, told.st_size, told.st_mtime_ns
            present[path] = self._seen.get(path, (0, 0, 0))
            if mark != present[path] and now - told.st_mtime >= settle_s:
                found.append((told.st_mtime_ns, path))
                present[path] = mark
        # Files that are gone are forgotten: memory does not grow with a day of dumps.
        self._seen = present
        return [path for _, path in sorted(found)]

    def _candidates(self) -> list[Path]:
        """Return files of the folder and of the folders in it, which are named after domains."""
        found: list[Path] = []
        for entry in sorted(self.root.iterdir()):
            inside = sorted(entry.iterdir()) if entry.is_dir() else [entry]
            found += [path for path in inside if _is_readable(path)]
            if len(found) > _MOST_FILES:
                raise NsysmoeError(
                    f"{self.root} holds more than {_MOST_FILES:,} files; move old ones away"
                )
        return found

    def domain_of(self, path: Path) -> str:
        """Return the domain of a dump: the folder that it lies in."""
        return path.parent.name if path.parent != self.root else ""


def _is_readable(path: Path) -> bool:
    if path.name.startswith(".") or path.name in _NOT_ROUTING:
        return False
    return path.suffix in TRACES | _ROUTING and path.is_file()


def read_dump(path: Path, domain: str) -> Dump:
    """Return the loads of a routing log.

    Raises:
        NsysmoeError: It is none that can be used.
    """
    from nsysmoe.analysis.routing.routing_load import count_logs  # noqa: PLC0415 - polars
    from nsysmoe.metrics.routed_load.routing_loads import run_loads  # noqa: PLC0415
    from nsysmoe.watch.routing import Dump  # noqa: PLC0415

    counted = count_logs([path])
    return Dump(path.name, domain, run_loads(counted.counts, counted.experts))


def read_capture(path: Path, nsys: str | None) -> Captured:
    """Return waiting and transfer of a trace.

    Raises:
        NsysmoeError: It is none that can be used, or has no collective that ranks share.
    """
    from nsysmoe.analysis.one_trace.waits import waits_and_transfer  # noqa: PLC0415 - DuckDB
    from nsysmoe.metrics.kernel_time.waits import CAUSES  # noqa: PLC0415

    # A file that is read once, and often deleted then, must not put other answers out.
    with using(has_cache=False):
        told, transfer_ns = waits_and_transfer(path, nsys=nsys)
    return Captured(
        source=path.name,
        wait_ns=int(told.whole["wait_ns"]),
        transfer_ns=transfer_ns,
        collectives=int(told.whole["collectives"]),
        causes={cause: int(told.whole[cause]) for cause in CAUSES},
    )
