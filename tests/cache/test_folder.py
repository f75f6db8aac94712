"""The folder of kept answers: whole or absent, bounded, shared, killed at any moment."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import IO

import pytest

from nsysmoe.cache import Cache, held_folder, open_cache, sweep
from nsysmoe.errors import InputError
from nsysmoe.resources import using

_WRITER = """
import sys
from pathlib import Path
from nsysmoe.cache import Cache
cache = Cache(Path(sys.argv[1]))
content = sys.argv[2].encode() * 200_000
print("ready", flush=True)
number = 0
while number < int(sys.argv[3]):
    key = Cache.key(number % 20)
    cache.put(key, "data", lambda path: path.write_bytes(content), source="s", what="w", notes={})
    found = cache.get(key)
    if found is not None:
        read = found.data.read_bytes()
        assert len(read) == len(content) and len(set(read)) == 1, (len(read), set(read))
    if number % 7 == 0:
        cache.clear()
    number += 1
"""


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _put(cache: Cache, number: int, content: bytes = b"x" * 1000) -> str:
    key = Cache.key(number)
    assert cache.put(
        key,
        "data",
        lambda path: _write(path, content),
        source=f"{number}.sqlite",
        what="view",
        notes={"number": number},
    )
    return key


def _content(cache: Cache, key: str) -> bytes | None:
    found = cache.get(key)
    return None if found is None else found.data.read_bytes()


def test_what_was_put_comes_back_with_its_notes(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    key = _put(cache, 1, b"abc")
    found = cache.get(key)
    assert found is not None
    assert (found.data.read_bytes(), found.notes) == (b"abc", {"number": 1})
    assert cache.get(Cache.key(2)) is None
    assert tmp_path.stat().st_mode & 0o077 == 0


def test_the_first_of_two_writers_wins(tmp_path: Path) -> None:
    key = _put(Cache(tmp_path), 1, b"first")
    _put(Cache(tmp_path), 1, b"other")
    assert _content(Cache(tmp_path), key) == b"first"


@pytest.mark.parametrize("damage", ["flip", "cut", "no data", "manifest", "no manifest"])
def test_an_entry_that_is_not_what_was_written_is_none(tmp_path: Path, damage: str) -> None:
    cache = Cache(tmp_path)
    key = _put(cache, 1)
    folder = next((tmp_path / "v1" / "entries").iterdir())
    data, manifest = folder / "data", folder / "manifest.json"
    if damage == "flip":
        data.write_bytes(b"x" * 500 + b"y" + b"x" * 499)
    elif damage == "cut":
        data.write_bytes(b"x" * 999)
    elif damage == "no data":
        data.unlink()
    elif damage == "manifest":
        manifest.write_bytes(manifest.read_bytes()[:-9])
    else:
        manifest.unlink()
    assert cache.get(key) is None
    cache.shrink()
    assert cache.entries() == []
    assert list((tmp_path / "v1" / "entries").iterdir()) == []
    assert _content(cache, _put(cache, 1)) == b"x" * 1000


def test_the_least_recently_used_go_beyond_the_bound(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 5000)
    keys = [_put(cache, number) for number in range(3)]
    for age, key in enumerate(reversed(keys)):
        manifest = tmp_path / "v1" / "entries" / key / "manifest.json"
        os.utime(manifest, (time.time() - 100 * (age + 1),) * 2)
    assert cache.get(keys[0]) is not None
    keys += [_put(cache, 3), _put(cache, 4)]
    kept = {stored.source for stored in cache.entries()}
    assert "0.sqlite" in kept
    assert "1.sqlite" not in kept
    assert sum(stored.size for stored in cache.entries()) <= 5000
    too_large = Cache.key("large")
    assert not cache.put(
        too_large,
        "data",
        lambda path: _write(path, b"x" * 4000),
        source="large",
        what="view",
        notes={},
    )


def test_clear_leaves_nothing_and_says_how_much(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    _put(cache, 1)
    _put(cache, 2)
    entries, freed = cache.clear()
    assert entries == 2
    assert freed > 2000
    assert cache.entries() == []
    assert cache.clear() == (0, 0)


def test_a_place_that_cannot_be_written_keeps_nothing(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    cache = Cache(blocked / "cache")
    assert not cache.put(Cache.key(1), "data", lambda _: None, source="s", what="w", notes={})
    assert cache.get(Cache.key(1)) is None
    assert cache.entries() == []


def test_several_processes_write_read_and_clear_at_once(tmp_path: Path) -> None:
    """A reader that got an entry may lose it to ``clear``, and then only as a missing file."""
    script = _WRITER.replace(
        "read = found.data.read_bytes()",
        "try:\n            read = found.data.read_bytes()\n        except FileNotFoundError:\n"
        "            number += 1\n            continue",
    )
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path), letter, "150"], stderr=subprocess.PIPE
        )
        for letter in "abc"
    ]
    for writer in writers:
        _, error = writer.communicate(timeout=120)
        assert writer.returncode == 0, error.decode()
    cache = Cache(tmp_path)
    assert all(cache.get(stored.folder.name) is not None for stored in cache.entries())
    assert list((tmp_path / "v1" / "partial").iterdir()) == []


def test_a_writer_killed_at_any_moment_leaves_nothing_that_is_believed(tmp_path: Path) -> None:
    for moment in range(12):
        with subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(tmp_path), "k", "100000"], stdout=subprocess.PIPE
        ) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(0.003 * moment)
            writer.send_signal(signal.SIGKILL)
        cache = Cache(tmp_path)
        for number in range(20):
            content = _content(cache, Cache.key(number))
            assert content in {None, b"k" * 200_000}
    _put(cache, 99)
    cache.shrink()
    left = list((tmp_path / "v1" / "partial").iterdir())
    # A folder whose lock was not yet made may be one that somebody is beginning.
    assert not [folder for folder in left if (folder / "lock").exists()]


def test_a_folder_that_is_being_begun_is_not_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two arms begin at once, in threads: one may sweep before the other holds its lock."""
    plain = fcntl.flock

    def swept_before(file: IO[str], operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", plain)
        sweep(tmp_path, "mine-")
        plain(file, operation)

    monkeypatch.setattr(fcntl, "flock", swept_before)
    with held_folder(tmp_path, "mine-") as folder:
        assert folder.is_dir()
        sweep(tmp_path, "mine-")
        assert folder.is_dir()
    assert not folder.exists()


def left_by_a_kill(parent: Path, prefix: str) -> Path:
    folder = parent / f"{prefix}{uuid.uuid4().hex}"
    folder.mkdir()
    (folder / "lock").touch()
    return folder


def test_a_held_folder_is_swept_when_its_process_is_gone(tmp_path: Path) -> None:
    with held_folder(tmp_path, "mine-") as folder:
        sweep(tmp_path, "mine-")
        assert folder.exists()
    assert not folder.exists()
    left = left_by_a_kill(tmp_path, "mine-")
    others = [left_by_a_kill(tmp_path, "other-"), tmp_path / "mine-by-hand"]
    others[1].mkdir()
    os.utime(others[1], (1e9, 1e9))
    sweep(tmp_path, "mine-")
    assert not left.exists()
    assert all(other.exists() for other in others)


def test_the_environment_says_where_and_how_much(
    cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = open_cache()
    assert cache is not None
    assert (cache.folder, cache.most_bytes) == (cache_folder, 10 * 10**9)
    monkeypatch.setenv("NSYSMOE_CACHE_SIZE", "1.5 GiB")
    sized = open_cache()
    assert sized is not None
    assert sized.most_bytes == 3 * 2**29
    monkeypatch.setenv("NSYSMOE_CACHE_SIZE", "much")
    with pytest.raises(InputError, match=r"^NSYSMOE_CACHE_SIZE: 'much' is no size"):
        open_cache()
    with using(has_cache=False):
        assert open_cache() is None


def test_keys_tell_every_part_apart() -> None:
    parts = [("a", "b"), ("ab",), ("a", None), ("a", ["b"]), ("a", 1), ("a", "1"), ()]
    assert len({Cache.key(*part) for part in parts}) == len(parts)
    assert json.dumps(Cache.key("é")).isascii()
