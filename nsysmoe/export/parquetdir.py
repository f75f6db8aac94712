"""The folder that ``nsys export --type parquetdir`` writes: a Parquet file for each table.

Tables, columns and the order of rows are those of the SQLite export; types are narrower, or
unsigned. Conditions on rows are SQLite's SQL, so SQLite judges them here too, a batch at a time.
"""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing, contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from nsysmoe.errors import InputError
from nsysmoe.export.files import PARQUET, is_parquetdir
from nsysmoe.export.tables import Tables

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    import pyarrow as pa
    import pyarrow.parquet as pq

_BATCH_ROWS = 65536
# A SQLite file of the same tables is some four times as large.
_SQLITE_RATIO = 4
_STRINGS = "StringIds"
# Of hardware 128 and more they fill 64 bits, which SQLite holds as negative numbers.
_FULL_IDS = {"globalPid", "globalTid", "globalVid", "vmId"}
_INT64_MAX = 2**63 - 1


class ParquetExport(Tables):
    """One folder of tables; made by ``open_parquetdir``."""

    @property
    def size(self) -> int:
        """Bytes that a SQLite file of it has, roughly."""
        files = (self._file(table) for table in self.tables)
        return _SQLITE_RATIO * sum(file.stat().st_size for file in files)

    @cached_property
    def _spelt(self) -> dict[str, str]:
        return {table.lower(): table for table in self.tables}

    def count_rows(self, table: str) -> int:
        """Return the number of rows of a table, 0 where there is none."""
        if not self.has_table(table):
            return 0
        with self._opened(table) as file:
            return int(file.metadata.num_rows)

    def has_rows(self, table: str) -> bool:
        """Tell whether a table exists and has a row."""
        return self.count_rows(table) > 0

    def integers(self, table: str, columns: Sequence[str]) -> IntegerStream:
        """Return integer columns of a table as a stream of Arrow record batches.

        Nothing is read before the stream is. A value that is no integer ends it with an error.
        """
        return IntegerStream(self._integers(table, columns), columns)

    def rows(
        self, table: str, columns: Sequence[str], condition: str = "1"
    ) -> list[tuple[Any, ...]]:
        """Return the rows of a table for which a condition of ours holds.

        Texts come mended to valid UTF-8 without NUL. The condition is SQLite's SQL.
        """
        named = set(re.findall(r"\w+", condition))
        read = [c for c in self.tables[self._spelt[table.lower()]] if c in {*columns, *named}]
        wanted = ", ".join(_quoted(column) for column in columns)
        found: list[tuple[Any, ...]] = []
        with closing(sqlite3.connect(":memory:")) as judge:
            judge.text_factory = bytes
            if _STRINGS in named and table != _STRINGS and self.has_table(_STRINGS):
                _fill(judge, _STRINGS, ("id", "value"), self._values(_STRINGS, ("id", "value")))
            _create(judge, table, read)
            for batch in self._batches(table, read):
                judge.execute(f"delete from {_quoted(table)}")
                _insert(judge, table, read, batch)
                query = f"select {wanted} from {_quoted(table)} where {condition}"
                found += judge.execute(query).fetchall()
        return [tuple(map(self._mended, row)) for row in found]

    def strings(self, ids: Iterable[int]) -> dict[int, str]:
        """Return the texts of ``StringIds`` for some ids; an id that it lacks is left out.

        Raises:
            InputError: An id has two texts, or the folder is damaged.
        """
        if not self.has_table(_STRINGS):
            return {}
        wanted = set(ids)
        found: dict[int, str] = {}
        for batch in self._values(_STRINGS, ("id", "value")):
            for key, value in batch:
                if key in wanted and value is not None:
                    self._add_text(found, key, value, _hint(self.path))
        return found

    def check(self, tables: Iterable[str]) -> None:
        """Decode every page of some tables: one that was cut or overwritten seldom decodes.

        Raises:
            InputError: The folder is damaged.
        """
        for table in tables:
            if self.has_table(table):
                for _ in self._batches(table, self.tables[self._spelt[table.lower()]]):
                    pass

    def _integers(self, table: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa  # noqa: PLC0415 - beside the trace

        spelt = {name.lower(): name for name in self.tables[self._spelt[table.lower()]]}
        stored = [spelt[column.lower()] for column in columns if column != "rowid"]
        schema = _schema(columns)
        first = 1
        # Without a column there is nothing to count rows by.
        for batch in self._batches(table, stored or list(spelt.values())[:1]):
            numbers = pa.array(range(first, first + batch.num_rows), pa.int64())
            first += batch.num_rows
            arrays = [
                numbers if column == "rowid" else _integer(batch, spelt[column.lower()])
                for column in columns
            ]
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)

    def _values(self, table: str, columns: Sequence[str]) -> Iterator[list[tuple[Any, ...]]]:
        for batch in self._batches(table, columns):
            yield _tuples(batch, columns)

    def _batches(self, table: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        with self._opened(table) as file:
            yield from file.iter_batches(_BATCH_ROWS, columns=list(columns))

    @contextmanager
    def _opened(self, table: str) -> Iterator[pq.ParquetFile]:
        with _reading(self._file(table)) as file:
            yield file

    def _file(self, table: str) -> Path:
        return self.path / f"{self._spelt[table.lower()]}{PARQUET}"


class IntegerStream:
    """Record batches of integers, offered through the Arrow C stream interface."""

    def __init__(self, batches: Iterator[pa.RecordBatch], columns: Sequence[str]) -> None:
        self._batches = batches
        self._columns = columns

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        import pyarrow as pa  # noqa: PLC0415 - beside the trace

        reader = pa.RecordBatchReader.from_batches(_schema(self._columns), self._batches)
        return reader.__arrow_c_stream__(requested_schema)

    def close(self) -> None:
        """Free the file."""
        close = getattr(self._batches, "close", None)
        if close is not None:
            close()


def open_parquetdir(path: Path) -> ParquetExport:
    """Open a folder of tables and list them.

    Raises:
        InputError: A file of the folder is damaged, or the export did not finish.
    """
    tables = {}
    for file in sorted(path.glob(f"*{PARQUET}")):
        with _reading(file) as opened:
            tables[file.name.removesuffix(PARQUET)] = tuple(opened.schema_arrow.names)
    if not is_parquetdir(path):
        raise InputError(f"{path} is no folder of nsys's tables; name a file in it")
    return ParquetExport(path, tables)


@contextmanager
def _reading(path: Path) -> Iterator[pq.ParquetFile]:
    import pyarrow as pa  # noqa: PLC0415 - beside the trace
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        reason = (str(error).splitlines() or ["unknown"])[0]
        raise InputError(
            f"{path} is damaged ({reason}); export the report again: {_hint(path.parent)}"
        ) from error


def _hint(folder: Path) -> str:
    return f"nsys export --type parquetdir -o {folder.name} {folder.name}.nsys-rep"


def _schema(columns: Sequence[str]) -> pa.Schema:
    import pyarrow as pa  # noqa: PLC0415

    return pa.schema([(column, pa.int64()) for column in columns])


def _integer(batch: pa.RecordBatch, column: str) -> pa.Array:
    import pyarrow as pa  # noqa: PLC0415

    array = _as_in_sqlite(batch.column(column), column)
    if not (pa.types.is_integer(array.type) or pa.types.is_null(array.type)):
        raise OSError(f"Type mismatch in {column}")
    try:
        return array.cast(pa.int64())
    except pa.ArrowInvalid as error:
        raise OSError(f"Type mismatch in {column}") from error


def _as_in_sqlite(array: pa.Array, column: str) -> pa.Array:
    """Return an id's 64 bits as SQLite has them, and any other column as it is."""
    import pyarrow as pa  # noqa: PLC0415

    if column in _FULL_IDS and pa.types.is_uint64(array.type):
        return array.view(pa.int64())
    return array


def _tuples(batch: pa.RecordBatch, columns: Sequence[str]) -> list[tuple[Any, ...]]:
    """Return rows: texts as bytes (they need not be UTF-8), None for what SQLite cannot hold."""
    import pyarrow as pa  # noqa: PLC0415

    arrays = []
    for column in columns:
        array = _as_in_sqlite(batch.column(column), column)
        if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
            array = array.cast(pa.large_binary())
        values = array.to_pylist()
        if pa.types.is_uint64(array.type):
            values = [None if value and value > _INT64_MAX else value for value in values]
        arrays.append(values)
    return list(zip(*arrays, strict=True))


def _create(judge: sqlite3.Connection, table: str, columns: Sequence[str]) -> None:
    names = ", ".join(_quoted(column) for column in columns)
    judge.execute(f"create table {_quoted(table)} ({names})")


def _insert(
    judge: sqlite3.Connection, table: str, columns: Sequence[str], batch: pa.RecordBatch
) -> None:
    import pyarrow as pa  # noqa: PLC0415

    # Bytes would be stored as a blob, which equals no text.
    marks = ", ".join(
        "?" if pa.types.is_integer(batch.column(c).type) else "cast(? as text)" for c in columns
    )
    query = f"insert into {_quoted(table)} values ({marks})"
    judge.executemany(query, _tuples(batch, columns))


def _fill(
    judge: sqlite3.Connection,
    table: str,
    columns: Sequence[str],
    parts: Iterable[list[tuple[Any, ...]]],
) -> None:
    _create(judge, table, columns)
    for part in parts:
        judge.executemany(f"insert into {_quoted(table)} values (?, cast(? as text))", part)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
