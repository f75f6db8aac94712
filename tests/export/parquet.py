"""A SQLite export as the folder of Parquet that nsys writes of the same report."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from pathlib import Path

# As nsys 2024.2.3 writes them.
_UNSIGNED = {"globalPid", "globalTid", "pid", "domainId", "correlationId", "totalMemory"}
_NARROW = {("StringIds", "id"), ("TARGET_INFO_GPU", "cuDevice")}


def write_parquetdir(source: Path, folder: Path) -> Path:
    """Write every table of an export and return the folder."""
    folder.mkdir()
    with closing(sqlite3.connect(source)) as database:
        database.text_factory = bytes
        tables = database.execute("select name from sqlite_master where type = 'table'").fetchall()
        for (name,) in tables:
            _write_table(database, name.decode(), folder)
    return folder


def _write_table(database: sqlite3.Connection, table: str, folder: Path) -> None:
    declared = database.execute(f"pragma table_info({table})").fetchall()
    rows = database.execute(f"select * from {table}").fetchall()
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(declared)
    arrays = {
        name.decode(): _array(table, name.decode(), kind.decode(), values)
        for (_, name, kind, *_), values in zip(declared, columns, strict=True)
    }
    pq.write_table(pa.table(arrays), folder / f"{table}.parquet")


def _array(table: str, column: str, kind: str, values: tuple[Any, ...]) -> pa.Array:
    if re.search("INT", kind.upper()):
        narrow = pa.int32() if (table, column) in _NARROW else pa.int64()
        if column in _UNSIGNED:
            # SQLite shows the 64 bits of an id as a negative number where the highest is set.
            return pa.array(values, pa.int64()).view(pa.uint64())
        return pa.array(values, narrow)
    if re.search("REAL|FLOA|DOUB", kind.upper()):
        return pa.array(values, pa.float64())
    # Texts need not be UTF-8; a file says they are.
    as_bytes = [v if isinstance(v, bytes | None) else str(v).encode() for v in values]
    return pa.array(as_bytes, pa.binary()).cast(pa.binary()).view(pa.string())
