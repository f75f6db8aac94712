"""An export is opened without changing it, and refused where it is not whole."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

import nsysmoe
from nsysmoe.errors import InputError
from nsysmoe.export.sqlite import has_write_ahead_log, open_export


@pytest.fixture
def copy(off: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(off, tmp_path / "copy.sqlite"))


def test_lists_tables_and_columns_without_regard_to_case(off: Path) -> None:
    export = open_export(off)
    assert export.has_column("cupti_activity_kind_kernel", "DEVICEID")
    assert not export.has_table("NOT_THERE")
    assert not export.has_column("NOT_THERE", "x")
    assert export.count_rows("CUPTI_ACTIVITY_KIND_KERNEL") == 4304
    assert export.count_rows("NOT_THERE") == 0


def test_odd_names_of_files(off: Path, tmp_path: Path) -> None:
    odd = tmp_path / "a b%20#?&'\"é.sqlite"
    shutil.copy(off, odd)
    assert open_export(odd).count_rows("CUPTI_ACTIVITY_KIND_KERNEL") == 4304


def test_names_that_are_no_utf_8_long_or_begin_with_two_slashes(off: Path, tmp_path: Path) -> None:
    for name in (os.fsdecode(b"a\xff.sqlite"), "l" * 250):
        shutil.copy(off, tmp_path / name)
        assert open_export(tmp_path / name).has_table("StringIds")
    assert open_export(Path(f"/{off}")).has_table("StringIds")


def test_reads_from_a_read_only_folder_and_leaves_nothing(copy: Path) -> None:
    before = copy.read_bytes()
    copy.chmod(0o444)
    copy.parent.chmod(0o555)
    try:
        open_export(copy).rows("StringIds", ["id", "value"])
        assert [path.name for path in copy.parent.iterdir()] == [copy.name]
        assert copy.read_bytes() == before
    finally:
        copy.parent.chmod(0o755)


def test_a_stale_wal_is_not_mixed_in(copy: Path, tmp_path: Path) -> None:
    """A log that belongs to another database would be applied by an ordinary open."""
    other = tmp_path / "other.sqlite"
    with closing(sqlite3.connect(other)) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE x (y)")
        database.commit()
        shutil.copy(f"{other}-wal", f"{copy}-wal")
    assert has_write_ahead_log(copy)
    export = open_export(copy)
    assert export.count_rows("CUPTI_ACTIVITY_KIND_KERNEL") == 4304
    assert Path(f"{copy}-wal").stat().st_size > 0


def test_a_half_written_export_is_refused(copy: Path) -> None:
    Path(f"{copy}-journal").write_bytes(bytes.fromhex("d9d505f920a163d7") + b"\0" * 500)
    with pytest.raises(InputError, match="half written"):
        open_export(copy)


def test_a_finished_journal_does_no_harm(copy: Path) -> None:
    Path(f"{copy}-journal").write_bytes(b"\0" * 512)
    open_export(copy)


@pytest.mark.parametrize("kept", [16, 99, 100, 4096, 100_000, 1_000_000])
def test_truncated(copy: Path, kept: int) -> None:
    copy.write_bytes(copy.read_bytes()[:kept])
    with pytest.raises(InputError, match=r"truncated|damaged"):
        open_export(copy)


def test_damaged_schema(copy: Path) -> None:
    content = bytearray(copy.read_bytes())
    content[100:4096] = b"\xa5" * 3996
    copy.write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        open_export(copy)


def test_a_database_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "photos.sqlite"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE photos (id INTEGER)")
        database.commit()
    with pytest.raises(InputError, match="not an nsys export"):
        open_export(path)


def test_texts_are_mended_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE StringIds (id INTEGER PRIMARY KEY, value TEXT)")
        for key, raw in enumerate([b"fine", b"nul\0inside", b"bad\xff", "é".encode()]):
            database.execute("INSERT INTO StringIds VALUES (?, CAST(? AS TEXT))", (key, raw))
        database.execute("INSERT INTO StringIds VALUES (9, NULL)")
        database.commit()
    export = open_export(path)
    found = export.strings([0, 1, 2, 3, 9, 77])
    assert found == {0: "fine", 1: "nul\ufffdinside", 2: "bad\ufffd", 3: "é"}
    assert len(export.repaired) == 2


def test_a_schema_that_is_no_text_is_damage(copy: Path) -> None:
    """SQLite quotes it in its complaint, which Python then cannot decode."""
    content = bytearray(copy.read_bytes())
    place = content.index(b"CREATE TABLE CUPTI_ACTIVITY_KIND_KERNEL") + 30
    content[place : place + 3] = b"\xff(\xfe"
    copy.write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        open_export(copy)


def test_an_id_with_two_texts_is_refused_where_it_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE StringIds (id, value)")
        rows = [(1, "one"), (2, "two"), (2, "2"), (3, "three"), (3, "three")]
        database.executemany("INSERT INTO StringIds VALUES (?, ?)", rows)
        database.commit()
    export = open_export(path)
    assert export.strings([1, 3]) == {1: "one", 3: "three"}
    with pytest.raises(InputError, match="the id 2 with two texts"):
        export.strings([1, 2, 3])


@pytest.mark.parametrize("names", [("rowid",), ("ROWID", "oid"), ("_rowid_",)])
def test_columns_called_as_the_number_of_a_row(
    off: Path, copy: Path, names: tuple[str, ...]
) -> None:
    with closing(sqlite3.connect(copy)) as database:
        for column, name in zip(("launchType", "cacheConfig"), names, strict=False):
            database.execute(
                f'ALTER TABLE CUPTI_ACTIVITY_KIND_KERNEL RENAME COLUMN {column} TO "{name}"'
            )
    with nsysmoe.open(copy) as changed, nsysmoe.open(off) as known:
        for view in ("moe_launches", "matched_collectives", "steps"):
            found, expected = (trace.frame(view) for trace in (changed, known))
            assert found.sort(found.columns).equals(expected.sort(found.columns)), view


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc, as Linux has it")
def test_a_file_that_was_read_is_not_kept_open(copy: Path) -> None:
    """A run has a thousand of them, and a process may open as many."""
    with nsysmoe.open(copy) as trace:
        assert trace.frame("moe_kernels").height > 0
        opened = {link.resolve() for link in Path("/proc/self/fd").iterdir()}
        assert copy.resolve() not in opened


def test_no_name_left_for_the_number_of_a_row(copy: Path) -> None:
    with closing(sqlite3.connect(copy)) as database:
        for column, name in (
            ("launchType", "rowid"),
            ("cacheConfig", "oid"),
            ("registersPerThread", "_rowid_"),
        ):
            database.execute(
                f'ALTER TABLE CUPTI_ACTIVITY_KIND_KERNEL RENAME COLUMN {column} TO "{name}"'
            )
    with nsysmoe.open(copy) as changed, pytest.raises(InputError, match="every name"):
        changed.frame("moe_launches")
