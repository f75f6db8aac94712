"""A trace: one nsys export behind the views of ``sql/``.

Nothing is read when a trace is opened. A query is planned first; the columns that it needs and
that are not there yet are then read from the export, so that each command pays for what it asks.
"""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from dataclasses import astuple
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any

import duckdb

from nsysmoe.classes import ClassMap, default_class_map
from nsysmoe.errors import InputError, MissingDataError, QueryError
from nsysmoe.export.files import identify
from nsysmoe.export.nsys import export_report
from nsysmoe.export.sqlite import damaged, has_write_ahead_log, open_export
from nsysmoe.findings import Finding
from nsysmoe.trace.catalogue import SCHEMAS, Column, catalogue
from nsysmoe.trace.closed import check_closed, close_connection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import polars as pl
    import pyarrow as pa

    from nsysmoe.export.sqlite import SqliteExport

KERNELS = "nsys.CUPTI_ACTIVITY_KIND_KERNEL"
_STRINGS = "nsys.StringIds"
_FUNCTIONS = "nsysmoe.kernel_functions"
_INT64_MAX = 2**63 - 1
_EXPORT_SETTINGS = {
    "EXPORT_PRODUCT_VERSION",
    "EXPORT_SCHEMA_VERSION",
    "EXPORT_PARAM_TIME_NORMALIZE",
    "EXPORT_PARAM_TIME_SHIFT",
}
# Tables whose other rows hold environments, command lines and users are read by an allow list.
_ALLOWED_NAMES: dict[str, Callable[[str], bool]] = {
    "nsys.META_DATA_CAPTURE": lambda name: name.endswith("CUDA_GRAPH_TRACE_OPTIONS:MODE"),
    "nsys.TARGET_INFO_SYSTEM_ENV": lambda name: name == "Hostname",
    "nsys.META_DATA_EXPORT": lambda name: name in _EXPORT_SETTINGS,
    "nsys.EXPORT_META_DATA": lambda name: name in _EXPORT_SETTINGS,
}


class Trace:
    """An opened export; made by ``open_trace``, closed by ``close`` or a ``with`` block.

    Safe to use from several threads: calls wait for one another. Two traces load side by side.

    Attributes:
        path: The file that the user named (the report, where nsys exported one).
    """

    def __init__(
        self,
        path: Path,
        export: SqliteExport,
        class_map: ClassMap,
        folder: tempfile.TemporaryDirectory[str] | None = None,
    ) -> None:
        self.path = path
        self._folder = folder
        self._export = export
        self._class_map = class_map
        self._lock = RLock()
        self._loaded: dict[str, frozenset[str]] = {}
        self._resolved: set[tuple[str, str]] = set()
        self._connection = duckdb.connect(":memory:")
        close_connection(self._connection)
        self._create_views()

    def __enter__(self) -> Trace:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the memory and temporary files; the trace cannot be asked again."""
        self._connection.close()
        if self._folder is not None:
            self._folder.cleanup()

    def frame(self, view: str, columns: tuple[str, ...] | None = None) -> pl.DataFrame:
        """Return a public view as a polars frame, reading only what it needs.

        Args:
            view: A name that ``nsysmoe views`` lists, e.g. ``moe_kernels``.
            columns: The columns wanted; all of them where left out.

        Raises:
            QueryError: There is no such view or column.
            InputError: The export is damaged or holds values that nsys does not write.
            MissingDataError: The export holds no kernels.
        """
        with self._answering():
            return _frame(self._relation(_select(view, columns)))

    def batches(
        self, view: str, columns: tuple[str, ...] | None = None, *, rows: int = 100_000
    ) -> pa.RecordBatchReader:
        """Return a public view as Arrow record batches, for what is larger than memory.

        Takes and raises what ``frame`` does; ``rows`` is the size of a batch. The reader is to
        be used up before the trace is asked again.
        """
        with self._answering():
            relation = self._relation(_select(view, columns))
            to_reader = getattr(relation, "to_arrow_reader", None) or relation.fetch_record_batch
            return to_reader(rows)

    def ask(self, query: str) -> pl.DataFrame:
        """Answer one SELECT over the views; it can read nothing else and change nothing.

        Raises:
            QueryError: The text is not one SELECT, or DuckDB refuses it.
        """
        check_closed(self._connection, query)
        with self._lock:
            import polars as pl  # noqa: PLC0415

            try:
                return _frame(self._relation(query))
            except duckdb.Error as error:
                raise QueryError(f"the query failed: {error}") from error
            except pl.exceptions.DuplicateError as error:
                raise QueryError(
                    f"two columns share a name ({error}); rename one with AS"
                ) from error
            except pl.exceptions.PolarsError as error:
                raise QueryError(f"a column's type cannot be shown ({error}); cast it") from error

    def row(self, view: str) -> dict[str, Any]:
        """Return the one row of a view that has one, by column name."""
        return self.rows(view)[0]

    def rows(self, view: str) -> list[dict[str, Any]]:
        """Return a small view as a list of rows, each by column name."""
        with self._answering():
            relation = self._relation(_select(view, None))
            names = relation.columns
            return [dict(zip(names, row, strict=True)) for row in relation.fetchall()]

    def has_kernels(self) -> bool:
        """Tell whether the export holds at least one kernel."""
        return self._export.has_rows("CUPTI_ACTIVITY_KIND_KERNEL")

    def no_kernels(self) -> MissingDataError:
        """Return the error for an export without kernels: why there are none, and the fix."""
        if launches := self._export.count_rows("CUPTI_ACTIVITY_KIND_GRAPH_TRACE"):
            return MissingDataError(
                f"{self.path} holds no kernels, only {launches:,} CUDA graph launches that hide "
                "theirs; capture again with --cuda-graph-trace=node"
            )
        return MissingDataError(
            f"{self.path} holds no GPU kernels; capture again with --trace=cuda,nvtx on a node "
            "whose driver nsys supports"
        )

    def table_names(self) -> list[str]:
        """Return the names of the export's tables, sorted."""
        return sorted(self._export.tables)

    def source_rows(self) -> dict[str, int]:
        """Return how many rows each table has that nsysmoe reads, for those that exist."""
        tables = [name.partition(".")[2] for name in catalogue().sources]
        return {
            table: self._export.count_rows(table)
            for table in tables
            if self._export.has_table(table)
        }

    def findings(self) -> list[Finding]:
        """Return what was odd about the file itself, as far as it has been read."""
        with self._lock:
            return [
                *self._write_ahead_log(),
                *self._repaired_texts(),
                *self._nameless_kernels(),
            ]

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """Let one thread at a time ask, and say in one line what DuckDB could not do."""
        with self._lock:
            try:
                yield
            except duckdb.Error as error:
                raise InputError(f"{self.path}: {str(error).splitlines()[0]}") from error

    # --- reading on demand ------------------------------------------------------------------

    def _relation(self, query: str) -> duckdb.DuckDBPyRelation:
        self._load_for(query)
        return self._connection.sql(query)

    def _load_for(self, query: str) -> None:
        """Read the columns that a query needs; names and classes follow from what was read."""
        demand = catalogue().demand(query)
        for table, columns in demand.items():
            if table not in {_STRINGS, _FUNCTIONS} and not columns <= self._columns_of(table):
                self._load(table, columns | self._columns_of(table))
        if _STRINGS in demand:
            self._load_strings()
        if _FUNCTIONS in demand and _FUNCTIONS not in self._loaded:
            self._load_functions()

    def _columns_of(self, table: str) -> frozenset[str]:
        return self._loaded.get(table, frozenset())

    def _load(self, table: str, wanted: frozenset[str]) -> None:
        contract = catalogue().sources[table]
        name = table.partition(".")[2]
        self._check_needed(table, name, contract)
        columns = [c for c in contract if c.name in wanted or c.name == "rowid"]
        present = [c for c in columns if self._export.has_column(name, c.name)]
        if present and self._export.has_table(name):
            self._read(table, name, present)
        self._loaded[table] = frozenset(c.name for c in columns)

    def _check_needed(self, table: str, name: str, contract: tuple[Column, ...]) -> None:
        if table == KERNELS and not self.has_kernels():
            raise self.no_kernels()
        if not self._export.has_table(name):
            return
        missing = [
            c.name for c in contract if c.is_needed and not self._export.has_column(name, c.name)
        ]
        if missing:
            raise InputError(
                f"{self.path}: table {name} has no column {', '.join(missing)}; export the report "
                "again with a released nsys and without filters"
            )

    def _read(self, table: str, name: str, present: list[Column]) -> None:
        if all(column.type == "BIGINT" for column in present):
            self._read_integers(table, name, present)
            self._check_rows(table, name, present)
        else:
            self._read_texts(table, name, present)
        self._show(table, present)

    def _read_integers(self, table: str, name: str, present: list[Column]) -> None:
        stream = self._export.integers(name, [column.name for column in present])
        try:
            self._create_from(table, stream, ", ".join(f'"{column.name}"' for column in present))
        except (duckdb.Error, OSError) as error:
            raise self._unreadable(name, str(error)) from error
        finally:
            stream.close()
        kinds = self._fetch(f"select column_name, column_type from (describe {_store(table)})")
        if wrong := [column for column, kind in kinds if kind != "BIGINT"]:
            raise self._unreadable(name, f"Type mismatch in {wrong[0]}")

    def _read_texts(self, table: str, name: str, present: list[Column]) -> None:
        import polars as pl  # noqa: PLC0415

        rows = self._export.rows(name, [column.name for column in present])
        if is_allowed := _ALLOWED_NAMES.get(table):
            at = [column.name for column in present].index("name")
            rows = [row for row in rows if is_allowed(str(row[at]))]
        schema = {c.name: pl.Int64 if c.type == "BIGINT" else pl.String for c in present}
        casts = [_casts(column) for column in present]
        data = [tuple(cast(value) for cast, value in zip(casts, row, strict=True)) for row in rows]
        self._create_from(table, _Stream(pl.DataFrame(data, schema=schema, orient="row")), "*")

    def _create_from(self, table: str, stream: object, columns: str) -> None:
        self._connection.register("incoming", stream)
        try:
            self._connection.execute(
                f"create or replace table {_store(table)} as select {columns} from incoming"
            )
        finally:
            self._connection.unregister("incoming")

    def _show(self, table: str, present: list[Column]) -> None:
        """Put what was read behind the source's name, absent columns as NULL."""
        self._connection.execute(_source_view(table, {column.name for column in present}))

    def _load_strings(self) -> None:
        """Read the texts that loaded columns refer to, and no others."""
        import polars as pl  # noqa: PLC0415

        referring = {
            (table, column.name)
            for table, columns in self._loaded.items()
            for column in catalogue().sources[table]
            if column.is_string_id and column.name in columns
        }
        if referring <= self._resolved:
            return
        self._resolved |= referring
        queries = [f'select distinct "{column}" from {table}' for table, column in referring]
        ids = [row[0] for row in self._fetch(" union ".join(queries)) if row[0] is not None]
        found = self._export.strings(ids)
        frame = pl.DataFrame(
            {"id": list(found), "value": list(found.values())},
            schema={"id": pl.Int64, "value": pl.String},
        )
        self._create_from(_STRINGS, _Stream(frame), "*")
        self._show(_STRINGS, list(catalogue().sources[_STRINGS]))

    def _load_functions(self) -> None:
        """Apply the class map to the distinct names of the kernels."""
        import polars as pl  # noqa: PLC0415

        self._load_for('select "name" from staging.stg_kernel_names')
        names = self._fetch('select distinct "name" from staging.stg_kernel_names order by "name"')
        rows = []
        for number, (name,) in enumerate(names):
            rows.append((number, name, *astuple(self._class_map.classify(name))))
        columns = catalogue().sources[_FUNCTIONS]
        schema = {c.name: pl.Int64 if c.type == "BIGINT" else pl.String for c in columns}
        frame = pl.DataFrame(rows, schema=schema, orient="row")
        self._create_from(_FUNCTIONS, _Stream(frame), "*")
        self._show(_FUNCTIONS, list(columns))
        self._loaded[_FUNCTIONS] = frozenset(schema)

    # --- what the file must hold ------------------------------------------------------------

    def _check_rows(self, table: str, name: str, present: list[Column]) -> None:
        """Refuse rows that nsys does not write, and pages that were read twice or not at all."""
        columns = {column.name for column in present}
        refused = {f"no {c.name}": f'"{c.name}" is null' for c in present if c.is_needed}
        sums = "0"
        if {"start", "end"} <= columns:
            refused["an end before its start"] = '"end" < "start"'
            sums = 'sum("end"::hugeint - "start"::hugeint)'
        counts = "".join(f", count(*) filter ({condition})" for condition in refused.values())
        numbers = "min(rowid), max(rowid)" if "rowid" in columns else "1, count(*)"
        rows, first, last, total, *bad = self._fetch(
            f"select count(*), {numbers}, {sums}{counts} from {_store(table)}"
        )[0]
        for what, count in zip(refused, bad, strict=True):
            if count:
                raise InputError(
                    f"{self.path}: {count:,} of {rows:,} rows of {name} have {what}; export the "
                    "report again with a released nsys"
                )
        if (total or 0) > _INT64_MAX:
            raise InputError(
                f"{self.path}: times in {name} are beyond 292 years; export the report again"
            )
        # Row numbers that follow one another prove that each page was read, and read once.
        if rows and last - first + 1 != rows:
            self._export.check(name)

    def _unreadable(self, name: str, reason: str) -> InputError:
        if "Type mismatch" in reason:
            return InputError(
                f"{self.path}: table {name} holds a value that is not an integer where nsys "
                "writes one; export the report again with a released nsys"
            )
        if "malformed" in reason or "corrupt" in reason or "not a database" in reason:
            return damaged(self.path)
        return InputError(f"{self.path}: table {name} cannot be read ({reason.splitlines()[0]})")

    # --- what was odd -----------------------------------------------------------------------

    def _write_ahead_log(self) -> list[Finding]:
        if not has_write_ahead_log(self._export.path):
            return []
        return [
            Finding(
                "write_ahead_log_ignored",
                "warning",
                f"{self._export.path.name}-wal lies beside {self.path} and was not read: if "
                "another program changed the export, its changes are not in these numbers",
                {"source": str(self.path)},
            )
        ]

    def _repaired_texts(self) -> list[Finding]:
        if not (count := self._export.repaired_texts):
            return []
        return [
            Finding(
                "repaired_text",
                "warning",
                f"{count:,} texts of {self.path} held NUL bytes or invalid UTF-8, shown as \ufffd",
                {"source": str(self.path), "texts": count},
            )
        ]

    def _nameless_kernels(self) -> list[Finding]:
        if _FUNCTIONS not in self._loaded:
            return []
        launches = self._fetch(
            "select count(*) from staging.stg_kernels as events "
            "inner join staging.stg_kernel_names as names using (string_id) "
            "where names.\"name\" = '?'"
        )[0][0]
        if not launches:
            return []
        return [
            Finding(
                "nameless_kernels",
                "warning",
                f"{launches:,} kernels of {self.path} have a name id that StringIds lacks: they "
                "are shown as ? and count in no class",
                {"source": str(self.path), "launches": launches},
            )
        ]

    # --- DuckDB -----------------------------------------------------------------------------

    def _create_views(self) -> None:
        for schema in (*SCHEMAS, "loaded"):
            self._connection.execute(f"create schema {schema}")
        for table in catalogue().sources:
            self._connection.execute(_source_view(table, set()))
        for definition in catalogue().view_definitions:
            self._connection.execute(definition)

    def _fetch(self, query: str) -> list[tuple[Any, ...]]:
        return self._connection.execute(query).fetchall()


class _Stream:
    """Offers a frame through the Arrow C stream interface alone, which needs no pyarrow."""

    def __init__(self, frame: pl.DataFrame) -> None:
        self._frame = frame

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._frame.__arrow_c_stream__(requested_schema)


def open_trace(
    path: str | Path, *, class_map: ClassMap | None = None, nsys: str | None = None
) -> Trace:
    """Open an nsys export (``.sqlite``) or a report (``.nsys-rep``, ``.qdrep``).

    Args:
        path: The file. It is never changed; a report is exported beside nothing, into a
            temporary folder that goes with the trace.
        class_map: What each kernel is for; the shipped map where left out.
        nsys: The ``nsys`` that exports a report; the one on PATH where left out.

    Raises:
        InputError: The file is missing, unreadable, damaged or not nsys's.
    """
    path = Path(path)
    kind = identify(path)
    if kind == "csv":
        raise InputError(f"{path} is a table, not a trace; this command needs the .sqlite export")
    if kind == "sqlite":
        return Trace(path, open_export(path), class_map or default_class_map())
    folder = tempfile.TemporaryDirectory(prefix="nsysmoe-")
    try:
        exported = export_report(path, Path(folder.name), nsys)
        return Trace(path, open_export(exported), class_map or default_class_map(), folder)
    except BaseException:
        folder.cleanup()
        raise


def _frame(relation: duckdb.DuckDBPyRelation) -> pl.DataFrame:
    # Through pyarrow: polars takes a DuckDB result directly too, but never lets go of it.
    import polars as pl  # noqa: PLC0415

    frame = pl.from_arrow(relation.to_arrow_table())
    assert isinstance(frame, pl.DataFrame)  # noqa: S101 - a table is never a series
    return frame


def _select(view: str, columns: tuple[str, ...] | None) -> str:
    """Return the SELECT of a public view; names are checked against the catalogue."""
    known = {v.name: [c.name for c in v.columns] for v in catalogue().views()}
    if view not in known:
        raise QueryError(f"there is no view {view}; there are {', '.join(known)}")
    if unknown := [name for name in columns or () if name not in known[view]]:
        raise QueryError(f"view {view} has no column {unknown[0]}; it has {', '.join(known[view])}")
    names = ", ".join(f'"{name}"' for name in dict.fromkeys(columns or known[view]))
    return f"select {names} from main.{view}"


def _store(table: str) -> str:
    """Return the table that keeps what was read of a source table."""
    return f'loaded."{table.partition(".")[2]}"'


def _source_view(table: str, present: set[str]) -> str:
    """Return the view that shows a source table with all its columns, absent ones as NULL."""
    columns = ", ".join(
        f'"{c.name}"' if c.name in present else f'null::{c.type} as "{c.name}"'
        for c in catalogue().sources[table]
    )
    origin = f"from {_store(table)}" if present else "where false"
    return f"create or replace view {table} as select {columns} {origin}"


def _casts(column: Column) -> Any:
    """Return what turns a value of SQLite's loose types into the column's type, or NULL."""
    if column.type == "BIGINT":
        return lambda value: value if isinstance(value, int) and abs(value) <= _INT64_MAX else None
    return lambda value: None if value is None else str(value)
