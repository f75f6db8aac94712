"""A trace: one nsys export behind the views of ``sql/``.

Nothing is read when a trace is opened. A query is planned first; the columns that it needs and
that are not there yet are then read from the export, so that each command pays for what it asks.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import cached_property
from hashlib import sha256
from threading import RLock
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import duckdb

from nsysmoe.classes import ClassMap, default_class_map
from nsysmoe.errors import InputError, QueryError
from nsysmoe.export.files import identify, trace_of
from nsysmoe.export.nsys import exporter
from nsysmoe.export.parquetdir import open_parquetdir
from nsysmoe.export.sqlite import has_write_ahead_log, open_export
from nsysmoe.findings import Finding
from nsysmoe.resources import resources
from nsysmoe.trace.catalogue import catalogue
from nsysmoe.trace.closed import check_closed
from nsysmoe.trace.kept import Oddities, kept_frames
from nsysmoe.trace.report import report_export
from nsysmoe.trace.room import out_of_room
from nsysmoe.trace.store import FUNCTIONS, Store, no_kernels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    import polars as pl
    import pyarrow as pa

    from nsysmoe.errors import MissingDataError
    from nsysmoe.export.tables import Export
    from nsysmoe.resources import Limits
    from nsysmoe.trace.file_clocks import FileClock
    from nsysmoe.trace.kept import KeptFrames, Question
    from nsysmoe.trace.member import Member

_BATCH = 100_000
_NAMELESS = (
    "select count(*) from staging.stg_kernels as events "
    "inner join staging.stg_kernel_names as names using (string_id) "
    "where names.\"name\" = '?'"
)


class Trace:
    """An opened export; made by ``open_trace``, closed by ``close`` or a ``with`` block.

    Safe to use from several threads: calls wait for one another. Two traces load side by side.

    Attributes:
        path: The file that the user named (the report, where nsys exported one).
        members: The files of a run of several; empty for one.
        hosts: Names of machines by the top 16 bits of ``global_pid``; empty where all is of one.
    """

    hosts: Mapping[int, str] = MappingProxyType({})
    members: tuple[Member, ...] = ()

    def __init__(
        self,
        path: Path,
        export: Callable[[], Export],
        class_map: ClassMap,
        kept: KeptFrames | None,
        limits: Limits,
    ) -> None:
        self.path = path
        self._open = export
        self._class_map = class_map
        self._kept = kept
        self._limits = limits
        self._odd = Oddities()
        self._ahead: list[Question] = []
        self._told: dict[str, Sequence[tuple[Any, ...]]] = {}
        self._lock = RLock()

    @cached_property
    def _export(self) -> Export:
        return self._open()

    @cached_property
    def _store(self) -> Store:
        """What has been read; kept answers need none."""
        store = Store(self.path, self._export, self._class_map, self._limits)
        for table, rows in self._told.items():
            store.tell(table, rows)
        return store

    @property
    def file_clocks(self) -> tuple[FileClock, ...]:
        """How the clock of each of several files was put on that of the run; none for one."""
        return ()

    def __enter__(self) -> Trace:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the memory and temporary files; the trace cannot be asked again."""
        with self._lock:
            try:
                if "_store" in self.__dict__:
                    self._store.close()
            finally:
                if "_export" in self.__dict__:
                    self._export.close()

    def free_memory(self) -> None:
        """Give memory back until something is asked again; what has been read stays read."""
        if "_store" in self.__dict__:
            with self._answering():
                self._store.free_memory()

    def frame(
        self,
        view: str,
        columns: tuple[str, ...] | None = None,
        during: tuple[int, int] | None = None,
    ) -> pl.DataFrame:
        """Return a public view as a polars frame, reading only what it needs.

        Args:
            view: A name that ``nsysmoe views`` lists, e.g. ``moe_kernels``.
            columns: The columns wanted; all of them where left out.
            during: From and until when, in ns: only rows that start then.

        Raises:
            QueryError: There is no such view or column.
            InputError: The export is damaged or holds values that nsys does not write.
            MissingDataError: The export holds no kernels.
        """
        with self._answering():
            return self._answer((view, columns, during))

    def read_ahead(self, *wanted: tuple[str, tuple[str, ...] | None]) -> None:
        """Say what several calls of ``frame`` are going to need: (view, columns) each.

        The first of them that is not kept reads for all. Without it each call reads the columns
        that the one before did not, and a table of a million rows is read again for one of them.
        """
        with self._lock:
            self._ahead += [(*one, None) for one in wanted]

    def batches(
        self, view: str, columns: tuple[str, ...] | None = None, *, rows: int = _BATCH
    ) -> pa.RecordBatchReader:
        """Return a public view as Arrow record batches of ``rows`` rows, one at a time in memory.

        Takes and raises what ``frame`` does.
        """
        query, name = _select(view, columns)
        with self._answering():
            self._store.relation(query, name)
            # A cursor of its own: an open result would block the trace's other questions.
            return _reader(self._cursor().sql(query), rows)

    def give(self, table: str, path: str) -> None:
        """Put the rows of a kept table there, from Parquet, instead of working them out.

        Args:
            table: Its full name; all its columns are in the file.
            path: The Parquet file.
        """
        import pyarrow.parquet as pq  # noqa: PLC0415

        with self._answering():
            self._store.give(table, pq.read_table(path))

    def tell(self, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Say what an analysis found out, for views that go by it (``store.TOLD``).

        Answers of these views are others from here on, and kept as such.

        Args:
            table: The source table's full name.
            rows: All its columns, in order.
        """
        with self._answering():
            self._told[table] = rows
            if "_store" in self.__dict__:
                self._store.tell(table, rows)

    def read_views(self, wanted: Iterable[tuple[str, tuple[str, ...]]]) -> None:
        """Read at once what ``view_batches`` is going to need, views of every layer included."""
        with self._answering():
            self._store.read_for(*((_selected(view, columns), view) for view, columns in wanted))

    def view_batches(self, view: str, columns: tuple[str, ...]) -> pa.RecordBatchReader:
        """Return a view of any layer (``staging.stg_kernels``) as Arrow record batches."""
        with self._answering():
            return _reader(self._store.relation(_selected(view, columns), view), _BATCH)

    def view_rows(self, view: str) -> list[tuple[Any, ...]]:
        """Return all rows of a small view or source table of any layer."""
        columns = tuple(catalogue().columns(view))
        with self._answering():
            return self._store.relation(_selected(view, columns), view).fetchall()

    def ask(self, query: str) -> pl.DataFrame:
        """Answer one SELECT over the views; it can read nothing else and change nothing.

        Raises:
            QueryError: The text is not one SELECT, or DuckDB refuses it.
        """
        check_closed(self._store.connection, query)
        with self._lock:
            import polars as pl  # noqa: PLC0415

            try:
                return _frame(_without_times(self._store, query))
            except duckdb.Error as error:
                raise out_of_room(error) or QueryError(f"the query failed: {error}") from error
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
            return self._answer((view, None, None)).to_dicts()

    def has_kernels(self) -> bool:
        """Tell whether the export holds at least one kernel."""
        return self._export.has_rows("CUPTI_ACTIVITY_KIND_KERNEL")

    def no_kernels(self) -> MissingDataError:
        """Return the error for an export without kernels: why there are none, and the fix."""
        return no_kernels(self.path, self._export)

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

    def _is_kept(self, question: Question) -> bool:
        return self._kept is not None and self._kept.has(self._as_kept(question))

    def _as_kept(self, question: Question) -> Question:
        """Return a question under the name that its answer is kept by."""
        view, columns, during = question
        if not self._told:
            return question
        reached = catalogue().reached(f"main.{view}")
        told = {table: list(rows) for table, rows in sorted(self._told.items()) if table in reached}
        if not told:
            return question
        return (f"{view}, told {sha256(repr(told).encode()).hexdigest()}", columns, during)

    def _answer(self, question: Question) -> pl.DataFrame:
        """Return a kept answer, or work it out and keep it."""
        if (
            self._kept is not None
            and (found := self._kept.get(self._as_kept(question))) is not None
        ):
            frame, notes = found
            self._odd.add(notes)
            return frame
        view, columns, during = question
        if left := [_select(*one[:2]) for one in self._ahead if not self._is_kept(one)]:
            self._store.read_for(*left)
        self._ahead.clear()
        query, name = _select(view, columns)
        if during is not None:
            query += f" where start_ns >= {int(during[0])} and start_ns < {int(during[1])}"
        frame = _frame(self._store.relation(query, name))
        if self._kept is not None:
            self._kept.put(self._as_kept(question), frame, self._oddities())
        return frame

    def _cursor(self) -> duckdb.DuckDBPyConnection:
        """Return a cursor of its own that finds the views: it does not take over the database."""
        connection = self._store.connection
        ((database,),) = connection.execute("select current_database()").fetchall()
        cursor = connection.cursor()
        cursor.execute(f'use "{database}"').fetchall()
        return cursor

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """Let one thread at a time ask, and say in one line what DuckDB could not do."""
        with self._lock:
            try:
                yield
            except duckdb.Error as error:
                refusal = InputError(f"{self.path}: {str(error).splitlines()[0]}")
                raise out_of_room(error) or refusal from error

    # --- what was odd -----------------------------------------------------------------------

    def _oddities(self) -> Oddities:
        """Return what is known by now, of kept answers and of what was read here."""
        if "_store" in self.__dict__:
            self._odd.repaired |= self._export.repaired
            if self._odd.nameless is None and self._store.has_read(FUNCTIONS):
                self._odd.nameless = self._store.fetch(_NAMELESS)[0][0]
        return self._odd

    def _write_ahead_log(self) -> list[Finding]:
        if not has_write_ahead_log(self.path):
            return []
        return [
            Finding(
                "write_ahead_log_ignored",
                "warning",
                f"{self.path.name}-wal lies beside {self.path} and was not read: if "
                "another program changed the export, its changes are not in these numbers",
                {"source": str(self.path)},
            )
        ]

    def _repaired_texts(self) -> list[Finding]:
        if not (count := len(self._oddities().repaired)):
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
        if not (launches := self._oddities().nameless):
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


def open_trace(
    path: str | Path,
    *,
    class_map: ClassMap | None = None,
    nsys: str | None = None,
    threads: int | None = None,
    memory_bytes: int | None = None,
) -> Trace:
    """Open an nsys export (``.sqlite``, or a folder of Parquet) or a report (``.nsys-rep``).

    Args:
        path: The file, or a folder that holds it alone (that of a run). It is never changed; a
            report is exported beside nothing, into a temporary folder that goes with the trace.
        class_map: What each kernel is for; the shipped map where left out.
        nsys: The ``nsys`` that exports a report; the one on PATH where left out.
        threads: Threads that DuckDB may use; those of ``resources()`` where left out.
        memory_bytes: What DuckDB may hold before it goes to disk; as above where left out.

    Raises:
        InputError: The file is missing, unreadable, damaged or not nsys's.
    """
    path = trace_of(path)
    kind = identify(path)
    class_map = class_map or default_class_map()
    if kind == "csv":
        raise InputError(f"{path} is a table, not a trace; this command needs the .sqlite export")
    limits = resources().limits(threads, memory_bytes)
    if kind in {"sqlite", "parquetdir"}:
        # Before it is opened: what changes from here on is found to have changed.
        kept = kept_frames(path, class_map.digest)
        export = open_export(path) if kind == "sqlite" else open_parquetdir(path)
        return Trace(path, lambda: export, class_map, kept, limits)
    kept = kept_frames(path, class_map.digest, exporter(nsys))
    return Trace(path, report_export(path, nsys), class_map, kept, limits)


def _reader(relation: duckdb.DuckDBPyRelation, rows: int) -> pa.RecordBatchReader:
    to_reader = getattr(relation, "to_arrow_reader", None) or relation.fetch_record_batch
    return to_reader(rows)


def _selected(view: str, columns: tuple[str, ...]) -> str:
    """Return the SELECT of a view of ``sql/`` and columns of it, both named by us."""
    names = ", ".join(f'"{name}"' for name in columns)
    return f"select {names} from {view}"


def _without_times(store: Store, query: str) -> duckdb.DuckDBPyRelation:
    """Return a query's answer with dates, times and intervals as text.

    DuckDB's reach beyond those of Arrow and polars, which end the process over some of them.
    """
    relation = store.relation(query)
    are_times = [
        any(part in str(kind) for part in ("DATE", "TIME", "INTERVAL")) for kind in relation.types
    ]
    if not any(are_times):
        return relation
    names = [f'"{name.replace(chr(34), chr(34) * 2)}"' for name in relation.columns]
    columns = ", ".join(
        f"{name}::varchar as {name}" if is_time else name
        for name, is_time in zip(names, are_times, strict=True)
    )
    inner = query.strip().rstrip(";")
    return store.connection.sql(f"select {columns} from (\n{inner}\n)")


def _frame(relation: duckdb.DuckDBPyRelation) -> pl.DataFrame:
    # Through pyarrow: polars takes a DuckDB result directly too, but never lets go of it.
    import polars as pl  # noqa: PLC0415

    frame = pl.from_arrow(relation.to_arrow_table())
    assert isinstance(frame, pl.DataFrame)  # noqa: S101 - a table is never a series
    return frame


def _select(view: str, columns: tuple[str, ...] | None) -> tuple[str, str]:
    """Return the SELECT of a public view, and the view's full name.

    Names are checked against the catalogue.
    """
    if view not in (known := catalogue().public_views()):
        raise QueryError(f"there is no view {view}; there are {', '.join(known)}")
    there = catalogue().columns(f"main.{view}")
    if unknown := [name for name in columns or () if name not in there]:
        raise QueryError(f"view {view} has no column {unknown[0]}; it has {', '.join(there)}")
    return _selected(f"main.{view}", tuple(dict.fromkeys(columns or there))), f"main.{view}"
