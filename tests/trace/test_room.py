"""Where there was no room, the message says so, and blames no trace."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import duckdb
import pytest

import nsysmoe
from nsysmoe.errors import InputError
from nsysmoe.resources import using
from nsysmoe.trace.room import out_of_room
from nsysmoe.trace.store import Store

if TYPE_CHECKING:
    from pathlib import Path

# More than it may hold.
_LARGE = "create table large as select md5(range::varchar) as text from range(1_000_000) order by 1"


def failure(temporary: str) -> duckdb.Error:
    """Return what DuckDB says where 24 MB of memory, and 2 MB of disk, do not do."""
    with duckdb.connect(config={"memory_limit": "24MB", "threads": "1"}) as connection:
        connection.execute(f"set temp_directory = '{temporary}'")
        connection.execute("set max_temp_directory_size = '2MB'")
        with pytest.raises(duckdb.Error) as failed:
            connection.execute(_LARGE)
    return failed.value


def test_a_disk_without_room_is_named(tmp_path: Path) -> None:
    found = out_of_room(failure(str(tmp_path)))
    assert found is not None
    assert "name another folder by TMPDIR" in str(found)
    full = duckdb.IOException('IO Error: Could not write file "x": No space left on device')
    assert str(out_of_room(full)) == str(found)
    assert str(out_of_room(OSError(errno.ENOSPC, "No space left on device"))) == str(found)


def test_memory_without_room_is_named() -> None:
    found = out_of_room(failure(""))
    assert found is not None
    assert "--memory-limit" in str(found)


def test_anything_else_is_no_matter_of_room() -> None:
    assert out_of_room(duckdb.IOException("IO Error: no such file")) is None
    assert out_of_room(OSError("Type mismatch in start")) is None
    # The message quotes a kernel's name.
    quoted = "Could not convert string 'No space left on device' to INT32"
    assert out_of_room(duckdb.ConversionException(quoted)) is None


def test_a_table_that_finds_no_room_is_not_called_damaged(
    off: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise duckdb.IOException("IO Error: Could not write file: No space left on device")

    monkeypatch.setattr(Store, "_create_from", full)
    with (
        using(has_cache=False),
        pytest.raises(InputError, match="TMPDIR") as refused,
        nsysmoe.open(off) as trace,
    ):
        trace.frame("kernels")
    assert "export the report again" not in str(refused.value)
