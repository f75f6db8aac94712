"""The folder of kept answers.

An entry is a folder named by its key: one file of data, and a manifest that holds the data's size
and checksum. It is written under ``partial/`` and renamed: an entry is there whole or not at all,
and of two processes that write the same one, the first wins. What a killed process left in
``partial/`` is removed by the next that finds nobody holding its lock. Whatever cannot be read,
written or believed counts as not kept: the answer is then worked out again.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import uuid
import zlib
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsysmoe.cache.held import LOCK, held_folder, sweep
from nsysmoe.errors import InputError
from nsysmoe.resources import bytes_of, resources

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FOLDER = "NSYSMOE_CACHE_DIR"
SIZE = "NSYSMOE_CACHE_SIZE"
_DEFAULT_BYTES = 10 * 10**9
# The layout of the folder: another one lies beside it.
_LAYOUT = "v1"
_MANIFEST = "manifest.json"
_FREE_BYTES = 10**9
# A large entry must not put everything else out.
_LARGEST_SHARE = 2
_CHUNK = 2**20
_SHRUNK = "shrunk"
_SHRINK_EVERY_S = 60
# An entry of more than this part of the bound is reason enough.
_NOTABLE_SHARE = 100


@dataclass(frozen=True)
class Entry:
    """An entry whose data is what was written.

    Attributes:
        data: The file.
        notes: What was noted beside it.
    """

    data: Path
    notes: dict[str, Any]


@dataclass(frozen=True)
class Stored:
    """What the cache holds of one answer.

    Attributes:
        source: The file that it came from, as it was named.
        what: What it answers.
        size: Bytes.
        used: Time of its last use, seconds since 1970.
    """

    source: str
    what: str
    size: int
    used: float
    folder: Path


class Cache:
    """Entries in a folder, the least recently used ones removed beyond ``most_bytes``."""

    def __init__(self, folder: Path, most_bytes: int = _DEFAULT_BYTES) -> None:
        self.folder = folder
        self.most_bytes = most_bytes
        self._entries = folder / _LAYOUT / "entries"
        self._partial = folder / _LAYOUT / "partial"

    @staticmethod
    def key(*parts: Any) -> str:
        """Return the key of what an answer depends on: JSON values."""
        text = json.dumps(parts, ensure_ascii=True, sort_keys=True)
        return blake2b(text.encode(), digest_size=20).hexdigest()

    def has(self, key: str) -> bool:
        """Tell whether there is an entry, without checking what it holds."""
        return (self._entries / key / _MANIFEST).exists()

    def get(self, key: str) -> Entry | None:
        """Return an entry that holds what was written; one that does not is removed."""
        folder = self._entries / key
        try:
            manifest = json.loads((folder / _MANIFEST).read_bytes())
            data = folder / manifest["file"]
            is_sound = _checksum(data) == (manifest["size"], manifest["crc32"])
            entry = Entry(data, manifest["notes"])
        except (OSError, ValueError, KeyError, TypeError):
            is_sound = False
        if not is_sound:
            if folder.exists():
                self._remove(folder)
            return None
        with suppress(OSError):
            os.utime(folder / _MANIFEST)
        return entry

    def put(self, key: str, name: str, write: Callable[[Path], None], **manifest: Any) -> bool:
        """Keep an answer; tell whether it is there now.

        Args:
            key: What ``key`` returned.
            name: Name of the file of data.
            write: Writes it to a path.
            manifest: ``source`` (the file that the answer came from), ``what`` (it answers) and
                ``notes`` to keep beside it; JSON values.
        """
        try:
            if self.has(key):
                return True
            with self._begun() as partial:
                write(partial / name)
                size = self._finish(partial, key, name, manifest)
            if self._is_shrinking_due(size):
                self.shrink()
        except OSError:
            # A full or read-only disk: an answer that is not kept is no error.
            return False
        return self.has(key)

    @contextmanager
    def workplace(self) -> Iterator[Path]:
        """Make a folder on the cache's disk for what a process takes out of it."""
        with self._begun() as folder:
            yield folder

    def entries(self) -> list[Stored]:
        """Return what is kept, the most recently used first."""
        found = [stored for folder in self._folders() if (stored := _stored(folder)) is not None]
        return sorted(found, key=lambda stored: -stored.used)

    def shrink(self) -> None:
        """Remove what was least recently used until the bound holds, and what nobody finishes."""
        left = self.most_bytes
        kept = self.entries()
        for stored in kept:
            left -= stored.size
            if left < 0:
                self._remove(stored.folder)
        for folder in set(self._folders()) - {stored.folder for stored in kept}:
            # Nothing that anybody could be given.
            self._remove(folder)
        sweep(self._partial)

    def clear(self) -> tuple[int, int]:
        """Remove everything that nobody is writing; return how many entries and bytes."""
        stored = self.entries()
        for folder in self._folders():
            self._remove(folder)
        sweep(self._partial)
        return len(stored), sum(one.size for one in stored)

    def _folders(self) -> list[Path]:
        try:
            return list(self._entries.iterdir())
        except OSError:
            return []

    @contextmanager
    def _begun(self) -> Iterator[Path]:
        """Make a folder to write in."""
        for folder in (self._entries, self._partial):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Kept answers show what a trace shows: for its user alone.
        self.folder.chmod(0o700)
        with held_folder(self._partial) as partial:
            yield partial

    def _is_shrinking_due(self, size: int) -> bool:
        """Tell whether to look at every entry: not after each small one of a hundred."""
        marker = self.folder / _LAYOUT / _SHRUNK
        try:
            is_due = time.time() - marker.stat().st_mtime > _SHRINK_EVERY_S
        except OSError:
            is_due = True
        if is_due := is_due or size > self.most_bytes // _NOTABLE_SHARE:
            marker.touch()
        return is_due

    def _finish(self, partial: Path, key: str, name: str, manifest: dict[str, Any]) -> int:
        """Write the manifest, wait for the disk, and show the entry under its name.

        Returns:
            Bytes of the data.
        """
        size, checksum = _checksum(partial / name)
        free = shutil.disk_usage(partial).free
        if size > self.most_bytes // _LARGEST_SHARE or free < _FREE_BYTES:
            return 0
        manifest |= {"file": name, "size": size, "crc32": checksum}
        (partial / _MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
        for file in (name, _MANIFEST):
            _flush(partial / file)
        # The lock goes with the folder, and keeps nobody from reading it.
        with suppress(OSError):
            partial.rename(self._entries / key)
            (self._entries / key / LOCK).unlink(missing_ok=True)
        return size

    def _remove(self, folder: Path) -> None:
        """Take an entry away at once, then delete it: nobody meets half of one."""
        away = self._partial / f"{uuid.uuid4().hex}"
        with suppress(OSError):
            self._partial.mkdir(parents=True, exist_ok=True, mode=0o700)
            folder.rename(away)
        shutil.rmtree(away, ignore_errors=True)


def open_cache() -> Cache | None:
    """Return the cache of this user; None where it is off or there is no place for it.

    Raises:
        InputError: ``NSYSMOE_CACHE_SIZE`` is no size.
    """
    if not resources().has_cache or (folder := cache_folder()) is None:
        return None
    size = os.environ.get(SIZE)
    try:
        return Cache(folder, bytes_of(size) if size else _DEFAULT_BYTES)
    except InputError as error:
        raise InputError(f"{SIZE}: {error}; --no-cache keeps nothing") from error


def cache_folder() -> Path | None:
    """Return where answers are kept: ``NSYSMOE_CACHE_DIR``, or the user's cache folder."""
    if named := os.environ.get(FOLDER):
        return Path(named)
    from platformdirs import user_cache_path  # noqa: PLC0415 - only where nothing is named

    try:
        return user_cache_path("nsysmoe")
    except RuntimeError:
        # No home at all.
        return None


def _stored(folder: Path) -> Stored | None:
    path = folder / _MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
        used = path.stat().st_mtime
        size = (folder / manifest["file"]).stat().st_size + path.stat().st_size
        return Stored(str(manifest["source"]), str(manifest["what"]), size, used, folder)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _checksum(path: Path) -> tuple[int, int]:
    """Return size and CRC-32 of a file."""
    size = checksum = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            checksum = zlib.crc32(chunk, checksum)
            size += len(chunk)
    return size, checksum


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
