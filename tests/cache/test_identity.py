"""A file that changed is another one, however it was changed."""

from __future__ import annotations

import os
import shutil
import time
from typing import TYPE_CHECKING

import pytest

from nsysmoe.cache import identify_content, identity, program_digest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def _append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x")


def _overwrite(path: Path) -> None:
    """Change one byte and put size and modification time back."""
    status = path.stat()
    with path.open("r+b") as file:
        file.seek(123_457)
        file.write(b"\xff\x00")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def _replace(path: Path) -> None:
    """Put another file of the same size and times in its place."""
    status = path.stat()
    other = path.with_name("other")
    shutil.copyfile(path, other)
    with other.open("r+b") as file:
        file.seek(200_000)
        file.write(b"\xff\x00")
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(path)


@pytest.mark.parametrize("change", [_append, _overwrite, _replace, os.utime])
def test_a_changed_file_is_another(
    off: Path, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    path = shutil.copyfile(off, tmp_path / "off.sqlite")
    before = identify_content(path)
    assert before is not None
    again = identify_content(path)
    assert again is not None
    assert again.digest == before.digest
    assert before.is_unchanged()
    # Clocks of file systems tick every few ms.
    time.sleep(0.02)
    change(path)
    after = identify_content(path)
    assert after is not None
    assert after.digest != before.digest
    assert not before.is_unchanged()


def test_a_file_that_changed_just_now_may_change_again(
    off: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = shutil.copyfile(off, tmp_path / "off.sqlite")
    fresh = identify_content(path)
    assert fresh is not None
    assert not fresh.is_settled
    monkeypatch.setattr(identity, "SETTLED_NS", 0)
    settled = identify_content(path)
    assert settled is not None
    assert settled.is_settled


def test_a_folder_is_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "tables"
    folder.mkdir()
    (folder / "a.parquet").write_bytes(b"1")
    before = identify_content(folder)
    (folder / "b.parquet").write_bytes(b"2")
    after = identify_content(folder)
    assert before is not None
    assert after is not None
    assert before.digest != after.digest
    assert not before.is_unchanged()


def test_a_file_that_is_gone_has_no_identity(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"1")
    found = identify_content(path)
    path.unlink()
    assert identify_content(path) is None
    assert found is not None
    assert not found.is_unchanged()


def test_the_program_has_a_digest() -> None:
    assert program_digest() == program_digest()
    assert len(program_digest()) == 32
