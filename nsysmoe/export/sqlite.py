"""The SQLite file that ``nsys export --type sqlite`` writes, opened so that it cannot change.

Everything is opened ``immutable``: SQLite then takes no lock, writes no side file, and works on
a read-only file system; a ``-wal`` that a copy or another program left behind is not mixed in.
Numbers come through ADBC as Arrow (docs/loading.md has the figures); texts come through the
standard library, the only route that survives invalid UTF-8.
"""

from __future__ import annotations

import os
import re
import sqlite3
import struct
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from nsysmoe.errors import InputError
from nsysmoe.export.files import export_hint
from nsysmoe.export.tables import Tables
from nsysmoe.stopping import stoppable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

_JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")
_BATCH_ROWS = "16384"
_BROKEN_VALUE = re.compile(r"(?:NULL|NUMERIC|TEXT|non-\w+) value in (\w+)\.")
_LONGEST_REASON = 200
# What SQLite calls the number of a row, where no column is called so.
_ROW_NUMBER = ("rowid", "_rowid_", "oid")
# The second where SQLite quotes a damaged schema in its complaint.
_BROKEN = (sqlite3.Error, UnicodeDecodeError)


class SqliteExport(Tables):
    """One SQLite export, its tables and columns; made by ``open_export``."""

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.path.stat().st_size

    def count_rows(self, table: str) -> int:
        """Return the number of rows of a table, 0 where there is none; reads all of its pages."""
        if not self.has_table(table):
            return 0
        with self._connection() as connection:
            return int(connection.execute(f"select count(*) from {_quoted(table)}").fetchone()[0])

    def has_rows(self, table: str) -> bool:
        """Tell whether a table exists and has a row; reads one page."""
        if not self.has_table(table):
            return False
        with self._connection() as connection:
            query = f"select 1 from {_quoted(table)} limit 1"
            return connection.execute(query).fetchone() is not None

    def integers(self, table: str, columns: Sequence[str]) -> ArrowStream:
        """Return integer columns of a table as a stream of Arrow record batches.

        Nothing is read before the stream is. A value that is no integer ends it with an error.
        """
        names = self._selected(table, columns)
        return ArrowStream(_uri(self.path), f"select {names} from {_quoted(table)}")

    def rows(
        self, table: str, columns: Sequence[str], condition: str = "1"
    ) -> list[tuple[Any, ...]]:
        """Return the rows of a table for which a condition of ours holds.

        Texts come mended to valid UTF-8 without NUL. The condition is SQLite's SQL.
        """
        names = self._selected(table, columns)
        query = f"select {names} from {_quoted(table)} where {condition}"
        with self._connection() as connection:
            rows = connection.execute(query).fetchall()
        return [tuple(map(self._mended, row)) for row in rows]

    def strings(self, ids: Iterable[int]) -> dict[int, str]:
        """Return the texts of ``StringIds`` for some ids; an id that it lacks is left out.

        Raises:
            InputError: An id has two texts, or the file is damaged.
        """
        if not self.has_table("StringIds"):
            return {}
        # SQLite takes at most 999 variables a statement in its older builds.
        wanted = sorted(set(ids))
        found: dict[int, str] = {}
        with self._connection() as connection:
            for start in range(0, len(wanted), 900):
                part = wanted[start : start + 900]
                marks = ", ".join("?" * len(part))
                query = f"select id, value from StringIds where id in ({marks})"
                for key, value in connection.execute(query, part):
                    if value is not None and isinstance(key, int):
                        self._add_text(found, key, value, export_hint(self.path))
        return found

    def check(self, tables: Iterable[str]) -> None:
        """Have SQLite verify the file: a page that was lost or doubled decodes as well as any.

        The whole file, since a damaged page may have come from another table. Values that break
        a table's own rules (a NULL in a NOT NULL column) count only in ``tables``.

        Raises:
            InputError: The file is damaged.
        """
        with self._connection() as connection:
            rows = connection.execute("pragma quick_check").fetchall()
        read = {table.lower() for table in tables}
        for (line,) in rows:
            text = line.decode("utf-8", "replace").splitlines()[-1]
            value = _BROKEN_VALUE.match(text)
            if text != "ok" and (value is None or value.group(1).lower() in read):
                raise damaged(self.path, text)

    def _selected(self, table: str, columns: Sequence[str]) -> str:
        """Return what to select: columns, and the number of the row under ``rowid``.

        A column may be called as SQLite calls that number, and then stands for itself.
        """
        free = next((name for name in _ROW_NUMBER if not self._has_own(table, name)), None)
        if free is None and "rowid" in columns:
            raise damaged(self.path, f"{table} has columns for every name of the row's number")
        return ", ".join(
            f"{free} as rowid" if column == "rowid" else _quoted(column) for column in columns
        )

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        with closing(_connect(self.path)) as connection, stoppable(connection.interrupt):
            try:
                yield connection
            except _BROKEN as error:
                raise damaged(self.path, _reason(error)) from error


class ArrowStream:
    """A query against an export, offered through the Arrow C stream interface.

    Consumers (polars, pyarrow, DuckDB) pull the batches from any thread. DuckDB asks for the
    stream several times, and reads the last one alone; each has the file open until ``close``.
    """

    def __init__(self, uri: str, query: str) -> None:
        self._uri = uri
        self._query = query
        self._resources: list[Any] = []

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        import adbc_driver_sqlite  # noqa: PLC0415 - only a load pays for its import
        from adbc_driver_manager import (  # noqa: PLC0415
            AdbcConnection,
            AdbcDatabase,
            AdbcStatement,
        )
        from adbc_driver_manager import Error as AdbcError  # noqa: PLC0415

        database = AdbcDatabase(driver=adbc_driver_sqlite._driver_path(), uri=self._uri)  # noqa: SLF001
        connection = AdbcConnection(database)
        statement = AdbcStatement(connection)
        statement.set_options(**{"adbc.sqlite.query.batch_rows": _BATCH_ROWS})
        statement.set_sql_query(self._query)
        self._resources += [statement, connection, database]
        try:
            handle, _ = statement.execute_query()
        except AdbcError as error:
            raise OSError(str(error)) from error
        return handle.__arrow_c_stream__(requested_schema)

    def close(self) -> None:
        """Free the query; the batches that were handed out stay valid."""
        from adbc_driver_manager import Error as AdbcError  # noqa: PLC0415

        for resource in self._resources:
            # A statement that failed says so again when it is closed.
            with suppress(AdbcError):
                resource.close()
        self._resources = []


def open_export(path: Path) -> SqliteExport:
    """Open an export and list its tables.

    Raises:
        InputError: The file is truncated, damaged, half written or not made by nsys.
    """
    _check_complete(path)
    try:
        with closing(_connect(path)) as connection:
            tables = _tables_of(connection)
    except _BROKEN as error:
        raise damaged(path, _reason(error)) from error
    export = SqliteExport(path, tables)
    if not export.is_nsys:
        raise InputError(
            f"{path} is a SQLite database but not an nsys export (it has none of nsys's tables); "
            f"make one: {export_hint(path)}"
        )
    return export


def has_write_ahead_log(path: Path) -> bool:
    """Tell whether a ``-wal`` with content lies beside the file; it is never read."""
    log = path.with_name(path.name + "-wal")
    try:
        return log.stat().st_size > 0
    except OSError:
        return False


def damaged(path: Path, reason: str = "") -> InputError:
    """Return the error for a file whose pages do not hold together."""
    # SQLite may quote a whole schema.
    detail = f" ({reason[:_LONGEST_REASON]})" if reason else ""
    return InputError(f"{path} is damaged{detail}; export the report again: {export_hint(path)}")


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, sqlite3.Error) else "its schema is no text"


def _check_complete(path: Path) -> None:
    """Refuse what SQLite would read without complaint until it meets the missing part."""
    try:
        with path.open("rb") as file:
            header = file.read(100)
        size = path.stat().st_size
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check its rights") from error
    if _has_hot_journal(path):
        raise InputError(
            f"{path} is half written ({path.name}-journal lies beside it): let the export finish, "
            f"or export again: {export_hint(path)}"
        )
    if len(header) < 100:
        raise InputError(f"{path} is truncated; export the report again: {export_hint(path)}")
    (page_size,) = struct.unpack(">H", header[16:18])
    (changes,) = struct.unpack(">I", header[24:28])
    (pages,) = struct.unpack(">I", header[28:32])
    (valid_for,) = struct.unpack(">I", header[92:96])
    expected = pages * (65536 if page_size == 1 else page_size)
    if changes == valid_for and size < expected:
        raise InputError(
            f"{path} is truncated ({size:,} of {expected:,} bytes); copy it again, or export the "
            f"report again: {export_hint(path)}"
        )


def _has_hot_journal(path: Path) -> bool:
    try:
        with path.with_name(path.name + "-journal").open("rb") as file:
            return file.read(8) == _JOURNAL_MAGIC
    except OSError:
        # None there, or a name so long that SQLite could not have made one.
        return False


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(_uri(path), uri=True, check_same_thread=False)
    connection.text_factory = bytes
    connection.execute("pragma trusted_schema = off")
    connection.execute("pragma cell_size_check = on")
    return connection


def _uri(path: Path) -> str:
    # One leading slash: after two, a URI names a host. Bytes: a name need not be UTF-8.
    name = b"/" + os.fsencode(path.absolute()).lstrip(b"/")
    return f"file:{quote(name)}?mode=ro&immutable=1"


def _tables_of(connection: sqlite3.Connection) -> dict[str, tuple[str, ...]]:
    columns: dict[str, list[str]] = {}
    for table, column in connection.execute(
        "select tables.name, columns.name from sqlite_master as tables, "
        "pragma_table_info(tables.name) as columns where tables.type = 'table'"
    ):
        name = table.decode("utf-8", "replace")
        columns.setdefault(name, []).append(column.decode("utf-8", "replace"))
    return {name: tuple(names) for name, names in columns.items()}


def _quoted(name: str) -> str:
    """Quote an identifier; the names come from ``sql/source``, never from a trace."""
    return '"' + name.replace('"', '""') + '"'
