"""What has been read of one export: a DuckDB whose source tables fill on demand.

A query is planned first; the columns that it needs and that are not here yet are then read from
the export, and looked over before anybody sees them.
"""

from __future__ import annotations

import logging
import weakref
from contextlib import ExitStack
from dataclasses import astuple
from typing import TYPE_CHECKING, Any

import duckdb

from nsysmoe.cache import own_folder
from nsysmoe.errors import InputError, MissingDataError
from nsysmoe.export.nccl import nccl_ranges
from nsysmoe.export.sqlite import damaged
from nsysmoe.stopping import Threads, results, stoppable
from nsysmoe.trace.catalogue import (
    SCHEMAS,
    Catalogue,
    Column,
    Demand,
    Script,
    body_of,
    catalogue,
    empty_table,
    statement_of,
)
from nsysmoe.trace.closed import close_connection
from nsysmoe.trace.room import out_of_room

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import polars as pl

    from nsysmoe.classes import ClassMap
    from nsysmoe.export.tables import Export
    from nsysmoe.resources import Limits

_log = logging.getLogger(__name__)
KERNELS = "nsys.CUPTI_ACTIVITY_KIND_KERNEL"
_STRINGS = "nsys.StringIds"
FUNCTIONS = "nsysmoe.kernel_functions"
_NCCL_RANGES = "nsysmoe.nccl_ranges"
# What analyses may say of a trace, and views then go by.
TOLD = frozenset({"nsysmoe.phase_partings", "nsysmoe.clock_residual"})
_MADE_HERE = {_STRINGS, FUNCTIONS, _NCCL_RANGES, *TOLD}
_INT64_MAX = 2**63 - 1
_EXPORT_SETTINGS = (
    "name in ('EXPORT_PRODUCT_VERSION', 'EXPORT_SCHEMA_VERSION', 'EXPORT_PARAM_TIME_NORMALIZE', "
    "'EXPORT_PARAM_TIME_SHIFT')"
)


def _ranges_like(column: str) -> str:
    """Return the condition for names of steps and layers: `execute_context_…`, `model.layers.3`."""
    # SQLite finds letters fast and tries a set at every place: nearly no text gets past the first.
    layers = " or ".join(f"{column} glob '*[Ll]ayer{s}[._][0-9]*'" for s in ("", "s"))
    return f"({column} glob 'execute_context_*' or ({column} glob '*ayer*' and ({layers})))"


_CONDITION_COLUMNS = {"nsys.NVTX_EVENTS": ("eventType", "text", "textId")}
# Which rows are read of tables that hold more than is wanted: the other rows of the first four
# are environments, command lines and users; of the last, ten million ranges that nobody asks for.
_CONDITIONS = {
    "nsys.META_DATA_CAPTURE": "name glob '*CUDA_GRAPH_TRACE_OPTIONS:MODE'",
    "nsys.TARGET_INFO_SYSTEM_ENV": "name = 'Hostname'",
    "nsys.META_DATA_EXPORT": _EXPORT_SETTINGS,
    "nsys.EXPORT_META_DATA": _EXPORT_SETTINGS,
    "nsys.NVTX_EVENTS": (
        f"""eventType in (59, 60) and "end" >= start and ({_ranges_like("text")} """
        f"or textId in (select id from StringIds where {_ranges_like('value')}))"
    ),
}


# What is small is held in memory as it is; on disk, tables are compressed and leave memory.
_SMALL_BYTES = 64 * 10**6


class Store:
    """The DuckDB of one export, with the views of ``sql/`` over whatever has been read.

    Not safe to use from two threads at once: ``Trace`` sees to that.

    Attributes:
        path: The file that messages name.
        connection: DuckDB, shut off from everything but what was read.
    """

    def __init__(self, path: Path, export: Export, class_map: ClassMap, limits: Limits) -> None:
        self.path = path
        self._export = export
        self._class_map = class_map
        self._loaded: dict[str, frozenset[str]] = {}
        self._resolved: set[tuple[str, str]] = set()
        self._is_checked = False
        self._made: set[str] = set()
        self._given: frozenset[str] = frozenset()
        self._place = ExitStack()
        # A trace that nobody closes goes with its process, and so does its folder.
        weakref.finalize(self, self._place.close)
        self._limits = limits
        self._folder = self._place.enter_context(own_folder("trace"))
        self.connection = self._connected()
        self._create_sources()

    def _connected(self) -> duckdb.DuckDBPyConnection:
        connection = connected(self._limits, self._folder, self._export.size)
        self._place.enter_context(stoppable(connection.interrupt))
        return connection

    def free_memory(self) -> None:
        """Give memory back until something is asked again: tables on disk stay as they are."""
        if self._export.size >= _SMALL_BYTES:
            self.connection.execute("checkpoint")
            self.connection.close()
            self.connection = self._connected()

    def close(self) -> None:
        """Free memory and disk."""
        self.connection.close()
        self._place.close()

    def relation(self, query: str, *views: str) -> duckdb.DuckDBPyRelation:
        """Return a query's answer, after reading what it needs.

        Args:
            query: Any SELECT.
            views: What it reads (``main.moe_kernels``); any of them where left out.

        Raises:
            InputError: The export is damaged or holds values that nsys does not write.
            MissingDataError: The query needs kernels and the export holds none.
            duckdb.Error: The query is not valid.
        """
        self.read_for((query, *views))
        self._make(query, *views)
        return self.connection.sql(query)

    def give(self, table: str, rows: object) -> None:
        """Put a kept table's rows there that were worked out elsewhere, over several files.

        Args:
            table: Its full name, e.g. ``main.matched_collectives``.
            rows: A frame or table of Arrow's, with the columns that will be asked for.
        """
        self.connection.register("incoming", rows)
        try:
            self.connection.execute(f"create table {table} as from incoming")
        finally:
            self.connection.unregister("incoming")
        self._made.add(table)
        self._given |= {table}

    def tell(self, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Fill a source table of ``TOLD``; no kept table stands on it."""
        columns = catalogue().sources[table]
        self._create_from_rows(table, columns, rows)
        self._show(table, list(columns))

    def fetch(self, query: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query of our own over what has been read already."""
        return self.connection.execute(query).fetchall()

    def has_read(self, table: str) -> bool:
        """Tell whether anything of a source table has been read."""
        return table in self._loaded

    def read_for(self, *queries: tuple[str, ...]) -> None:
        """Read the columns that queries need; names and classes follow from what was read.

        Args:
            queries: Each a SELECT and the views that it reads, none named where it may be any.
        """
        demand: dict[str, frozenset[str]] = {}
        for query, *views in queries:
            known = catalogue().demand(query, *views, without=self._empty(*views))
            for table, columns in known.items():
                demand[table] = demand.get(table, frozenset()) | columns
        if self._is_checked:
            self._read_demand(demand)
            return
        with Threads(1) as beside:
            # Beside the reading: both go through the file, and neither holds Python's lock.
            check = beside.submit(self._export.check, _source_names())
            self._read_demand(demand)
            results([check])
        self._is_checked = True

    def _read_demand(self, demand: Demand) -> None:
        for table, columns in demand.items():
            if table not in _MADE_HERE and not columns <= self._columns_of(table):
                self._load(table, columns | self._columns_of(table))
        if _STRINGS in demand:
            self._load_strings()
        if FUNCTIONS in demand and FUNCTIONS not in self._loaded:
            self._load_functions()

    def _empty(self, *views: str) -> frozenset[str]:
        """Return the kept tables that have no rows because their leader has none."""
        leaders = catalogue().leaders(*views)
        if _NCCL_RANGES in leaders.values() and _NCCL_RANGES not in self._loaded:
            self._load_nccl_ranges()
        return self._given | frozenset(
            table
            for table, leader in leaders.items()
            if not self.fetch(f"select exists (from {leader})")[0][0]
        )

    def _columns_of(self, table: str) -> frozenset[str]:
        return self._loaded.get(table, frozenset())

    def _load(self, table: str, wanted: frozenset[str]) -> None:
        contract = catalogue().sources[table]
        name = table.partition(".")[2]
        self._check_needed(table, name, contract)
        columns = [c for c in contract if c.name in wanted]
        present = [c for c in columns if self._export.has_column(name, c.name)]
        if present and self._export.has_table(name) and self._can_tell_rows(table, name):
            self._read(table, name, present)
        self._loaded[table] = frozenset(c.name for c in columns)

    def _can_tell_rows(self, table: str, name: str) -> bool:
        """Tell whether a table has the columns that say which of its rows may be read."""
        columns = _CONDITION_COLUMNS.get(table, ("name",) if table in _CONDITIONS else ())
        return all(self._export.has_column(name, column) for column in columns) and (
            table != "nsys.NVTX_EVENTS" or self._export.has_column("StringIds", "value")
        )

    def _check_needed(self, table: str, name: str, contract: tuple[Column, ...]) -> None:
        if table == KERNELS and not self._export.has_rows(name):
            raise no_kernels(self.path, self._export)
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
        else:
            self._read_texts(table, name, present)
        _log.info("%s: read %d columns of %s", self.path, len(present), name)
        self._check_rows(table, name, present)
        self._show(table, present)

    def _read_integers(self, table: str, name: str, present: list[Column]) -> None:
        stream = self._export.integers(name, [column.name for column in present])
        try:
            self._create_from(table, stream, ", ".join(f'"{column.name}"' for column in present))
        except (duckdb.Error, OSError) as error:
            raise out_of_room(error) or self._unreadable(name, str(error)) from error
        finally:
            stream.close()
        kinds = self.fetch(f"select column_name, column_type from (describe {_store(table)})")
        if wrong := [column for column, kind in kinds if kind != "BIGINT"]:
            raise self._unreadable(name, f"Type mismatch in {wrong[0]}")

    def _read_texts(self, table: str, name: str, present: list[Column]) -> None:
        condition = _CONDITIONS.get(table, "1")
        rows = self._export.rows(name, [column.name for column in present], condition)
        self._create_from_rows(table, present, rows)

    def _create_from_rows(
        self, table: str, columns: Sequence[Column], rows: Sequence[tuple[Any, ...]]
    ) -> None:
        import polars as pl  # noqa: PLC0415

        schema = {c.name: pl.Int64 if c.type == "BIGINT" else pl.String for c in columns}
        casts = [_casts(column) for column in columns]
        data = [tuple(cast(value) for cast, value in zip(casts, row, strict=True)) for row in rows]
        self._create_from(table, _Stream(pl.DataFrame(data, schema=schema, orient="row")), "*")

    def _create_from(self, table: str, stream: object, columns: str) -> None:
        self.connection.register("incoming", stream)
        try:
            self.connection.execute(
                f"create or replace table {_store(table)} as select {columns} from incoming"
            )
        finally:
            self.connection.unregister("incoming")

    def _show(self, table: str, present: list[Column]) -> None:
        """Put what was read behind the source's name, absent columns as NULL."""
        self.connection.execute(_source_view(table, {column.name for column in present}))

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
        self._check_needed(_STRINGS, "StringIds", catalogue().sources[_STRINGS])
        queries = [f'select distinct "{column}" from {table}' for table, column in referring]
        ids = [row[0] for row in self.fetch(" union ".join(queries)) if row[0] is not None]
        found = self._export.strings(ids)
        frame = pl.DataFrame(
            {"id": list(found), "value": list(found.values())},
            schema={"id": pl.Int64, "value": pl.String},
        )
        self._create_from(_STRINGS, _Stream(frame), "*")
        self._show(_STRINGS, list(catalogue().sources[_STRINGS]))
        self._resolved |= referring

    def _load_nccl_ranges(self) -> None:
        columns = catalogue().sources[_NCCL_RANGES]
        if rows := nccl_ranges(self._export):
            self._create_from_rows(_NCCL_RANGES, columns, rows)
            self._check_rows(_NCCL_RANGES, "NVTX_EVENTS", list(columns))
            self._show(_NCCL_RANGES, list(columns))
        self._loaded[_NCCL_RANGES] = frozenset(column.name for column in columns)

    def _load_functions(self) -> None:
        """Apply the class map to the distinct names of the kernels."""
        query = 'select "name" from staging.stg_kernel_names'
        self._read_demand(catalogue().demand(query, "staging.stg_kernel_names"))
        self._make(query, "staging.stg_kernel_names")
        names = self.fetch('select distinct "name" from staging.stg_kernel_names order by "name"')
        rows = []
        for number, (name,) in enumerate(names):
            rows.append((number, name, *astuple(self._class_map.classify(name))))
        columns = catalogue().sources[FUNCTIONS]
        self._create_from_rows(FUNCTIONS, columns, rows)
        self._show(FUNCTIONS, list(columns))
        self._loaded[FUNCTIONS] = frozenset(column.name for column in columns)

    def _check_rows(self, table: str, name: str, present: list[Column]) -> None:
        """Refuse rows that nsys does not write, and pages that do not hold together."""
        refused = {f"no {c.name}": f'"{c.name}" is null' for c in present if c.is_needed}
        sums = "0"
        if {"start", "end"} <= {column.name for column in present}:
            refused["an end before its start"] = '"end" < "start"'
            sums = 'sum("end"::hugeint - "start"::hugeint)'
        counts = "".join(f", count(*) filter ({condition})" for condition in refused.values())
        rows, total, *bad = self.fetch(f"select count(*), {sums}{counts} from {_store(table)}")[0]
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

    def _unreadable(self, name: str, reason: str) -> InputError:
        if "Type mismatch" in reason or "nvalid unicode" in reason:
            return InputError(
                f"{self.path}: table {name} holds a value that is not an integer where nsys "
                "writes one; export the report again with a released nsys"
            )
        if "malformed" in reason or "corrupt" in reason or "not a database" in reason:
            return damaged(self.path)
        return InputError(
            f"{self.path}: table {name} cannot be read ({reason.splitlines()[0]}); "
            "export the report again with a released nsys"
        )

    def _create_sources(self) -> None:
        for schema in (*SCHEMAS, "loaded"):
            self.connection.execute(f"create schema {schema}")
        for table in catalogue().sources:
            self.connection.execute(_source_view(table, set()))
            self._made.add(table)

    def _make(self, query: str, *views: str) -> None:
        """Make the views that a query reads, and fill the kept tables that it stands on."""
        empty = self._empty(*views)
        make(self.connection, catalogue(), self._made, (query, *views), self._given, empty)


class _Stream:
    """Offers a frame through the Arrow C stream interface alone, which needs no pyarrow."""

    def __init__(self, frame: pl.DataFrame) -> None:
        self._frame = frame

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._frame.__arrow_c_stream__(requested_schema)


def connected(limits: Limits, folder: Path, size: int) -> duckdb.DuckDBPyConnection:
    """Return a DuckDB, shut off from files and network, over the tables that the folder holds.

    Args:
        limits: What it may use.
        folder: Where it may write.
        size: Bytes of what will be asked: tables of little stay in memory, others are on disk.
    """
    # Where DuckDB expects few rows an ASOF join compares each with all: it expects wrongly of
    # what a kept table will hold, and 20,000 kernels took 12 s.
    config: dict[str, str | bool | int | float | list[str]] = {
        "asof_loop_join_threshold": 0,
        "memory_limit": f"{limits.memory_bytes}B",
    }
    if limits.threads is not None:
        config["threads"] = limits.threads
    connection = duckdb.connect(":memory:", config=config)
    if size >= _SMALL_BYTES:
        place = str(folder / "tables.duckdb").replace("'", "''")
        # Nobody opens it after a crash: a log of what it should hold would be written, and synced,
        # for each statement.
        connection.execute(f"attach '{place}' as tables (recovery_mode no_wal_writes)")
        connection.execute("use tables")
    close_connection(connection, folder / "spilled")
    return connection


def make(  # noqa: PLR0913, PLR0917 - what a store knows
    connection: duckdb.DuckDBPyConnection,
    known: Catalogue,
    made: set[str],
    query: tuple[str, ...],
    given: frozenset[str] = frozenset(),
    empty: frozenset[str] = frozenset(),
) -> None:
    """Make the views that a query reads, and fill the kept tables that it stands on.

    Args:
        connection: Where they are made.
        known: What they are.
        made: What is there already; what is made is added.
        query: A SELECT, and the views that it reads.
        given: Kept tables that were filled otherwise, whatever they stand on.
        empty: Kept tables that are known to have no rows.
    """
    text, *views = query
    # What only an empty table stands on has not been read: made from nothing, a table would stay
    # empty for the queries that do read it.
    without = given | empty
    kept = set(known.kept(text, *views, without=without))
    for name in known.reached(*views, without=without):
        script = known.scripts[name]
        if name in made:
            continue
        if name in empty:
            connection.execute(empty_table(name, known.column_types(name)))
        elif name in kept if script.is_kept else script.references <= made:
            make_one(connection, script)
        else:
            continue
        made.add(name)


def make_one(connection: duckdb.DuckDBPyConnection, script: Script) -> None:
    """Make a view, or fill a kept table, range by range where its script names them."""
    if script.parts is None:
        # What follows is documentation, which nobody reads here.
        connection.execute(statement_of(script)).fetchall()
        return
    ranges = connection.execute(f"select low, high from {script.parts}").fetchall()
    for number, bounds in enumerate(ranges):
        for name, value in zip(("low", "high"), bounds, strict=True):
            number_of = "null" if value is None else int(value)
            connection.execute(f"set variable {name} = ({number_of})::bigint")
        body = body_of(script)
        verb = f"insert into {script.name} {body}" if number else statement_of(script)
        connection.execute(verb).fetchall()


def no_kernels(path: Path, export: Export) -> MissingDataError:
    """Return the error for an export without kernels: why there are none, and the fix."""
    if launches := export.count_rows("CUPTI_ACTIVITY_KIND_GRAPH_TRACE"):
        return MissingDataError(
            f"{path} holds no kernels, only {launches:,} CUDA graph launches that hide "
            "theirs; capture again with --cuda-graph-trace=node"
        )
    return MissingDataError(
        f"{path} holds no GPU kernels; capture again with --trace=cuda,nvtx on a node "
        "whose driver nsys supports"
    )


def _source_names() -> list[str]:
    """Return nsys's names of the tables that are read at all."""
    return [table.partition(".")[2] for table in catalogue().sources]


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
