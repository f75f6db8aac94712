"""What tells one file from another, and from what it was before, without reading all of it."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

# Coarse clocks of file systems: what changed later than this before it was looked at may change
# again within the same tick.
SETTLED_NS = 2 * 10**9
_SAMPLES = 64
_SAMPLE_BYTES = 4096
# SQLite's header with its change counter and the schema; Parquet's footer.
_EDGE_BYTES = 65536


@dataclass(frozen=True)
class Identity:
    """A file or folder as it was at one moment.

    Attributes:
        path: The file.
        digest: Of its device, inode, size, times of its last change (also of its attributes,
            which no program can set back) and of samples of its content.
        is_settled: Whether it last changed so long ago that a later change shows.
    """

    path: Path
    digest: str
    is_settled: bool
    _stamps: tuple[tuple[int, ...], ...]

    def is_unchanged(self) -> bool:
        """Tell whether the file still has the times and the size that it had."""
        try:
            return tuple(_stamp(os.stat(file)) for file in _files(self.path)) == self._stamps  # noqa: PTH116 - bytes of a name may be anything
        except OSError:
            return False


def identify_content(path: Path) -> Identity | None:
    """Return the identity of a file, or of a folder by its files; None where it cannot be read."""
    now = time.time_ns()
    digest = blake2b(digest_size=16)
    stamps = []
    try:
        for file in _files(path):
            stamp = _stamp(os.stat(file))  # noqa: PTH116 - as above
            digest.update(repr((os.fsencode(os.path.basename(file)), stamp)).encode())  # noqa: PTH119
            _sample(file, stamp[2], digest)
            stamps.append(stamp)
    except OSError:
        return None
    latest = max((max(stamp[3:]) for stamp in stamps), default=now)
    return Identity(path, digest.hexdigest(), latest + SETTLED_NS < now, tuple(stamps))


def _files(path: Path) -> list[str]:
    if not path.is_dir():
        return [str(path)]
    return sorted(entry.path for entry in os.scandir(path) if entry.is_file())


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


def _sample(file: str, size: int, digest: blake2b) -> None:
    with open(file, "rb") as content:  # noqa: PTH123 - the name as the system gave it
        digest.update(content.read(_EDGE_BYTES))
        if size <= _EDGE_BYTES:
            return
        for number in range(1, _SAMPLES):
            content.seek(size * number // _SAMPLES)
            digest.update(content.read(_SAMPLE_BYTES))
        content.seek(-min(size, _EDGE_BYTES), os.SEEK_END)
        digest.update(content.read(_EDGE_BYTES))
