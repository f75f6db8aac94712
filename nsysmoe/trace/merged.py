"""Several files as one trace: parts of each, put on one clock, under the views of ``sql/``.

What each file can tell by itself is worked out where the engine does it, and comes as Parquet. The
views that look across ranks are the same ones as for a single file; they stand here on the parts
of all. Two rounds are needed at most: what a GPU did with its time depends on which collectives
met, and that takes all files.
"""

from __future__ import annotations

import socket
import tempfile
import weakref
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsysmoe.cache import own_folder
from nsysmoe.errors import InputError, MissingDataError, QueryError
from nsysmoe.export.files import size_of
from nsysmoe.findings import Finding
from nsysmoe.resources import LEAST_MEMORY
from nsysmoe.stopping import stoppable, undone
from nsysmoe.trace.catalogue import SCHEMAS, Catalogue, catalogue
from nsysmoe.trace.members import labelled
from nsysmoe.trace.parts import (
    FIRST,
    GIVEN,
    NAMED,
    OF_A_HOST,
    SECOND,
    PartJob,
    Parts,
    make_parts,
)
from nsysmoe.trace.store import FUNCTIONS, TOLD, connected, make
from nsysmoe.trace.trace import Trace

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import duckdb
    import polars as pl

    from nsysmoe.classes import ClassMap
    from nsysmoe.engines import Engine
    from nsysmoe.export.tables import Export
    from nsysmoe.resources import Limits
    from nsysmoe.trace.file_clocks import FileClock
    from nsysmoe.trace.member import Member

_EVENTS = "staging.stg_collective_events"
_MOE = "main.moe_kernels"
_MEETINGS = """
select
    (events.kernel_id >> 40)::integer as file,
    events.rank,
    events.series,
    events.launches,
    events.ordinal,
    events.end_ns
from staging.stg_collective_arrivals as events
inner join main.kernel_classes as names on events.name_id = names.name_id
where
    events.is_sampled
    and names.class = 'collective'
    and names.role in ('all_reduce', 'all_gather', 'reduce_scatter', 'all_to_all')
"""
_MEETING_VIEWS = ("staging.stg_collective_arrivals", "main.kernel_classes")
# The row numbers of a file's kernels and graphs, and the number of the file above them.
FILE_BITS = 40
# Columns that mean nothing without others of their row.
_WITH = {"end_ns": "start_ns", "last_end_ns": "first_start_ns", "global_tid": "global_pid"}


class MergedTrace(Trace):
    """Files of one run behind the views that need no more than their parts; asked like a trace.

    Attributes:
        path: What the user named.
        members: The files, in the order of what they hold.
        hosts: Number of a machine (the top 16 bits of ``global_pid``) to its name; empty where
            all files are of one.
    """

    def __init__(  # noqa: PLR0913 - what reading takes, by keyword
        self,
        path: Path,
        members: Sequence[Member],
        *,
        engine: Engine,
        class_map: ClassMap,
        limits: Limits,
        nsys: str | None = None,
        scratch: Path | None = None,
        said: Sequence[Finding] = (),
    ) -> None:
        # Answers are not kept one by one: whole ones are, by all files (analysis/kept.py).
        super().__init__(path, self._no_export, class_map, None, limits)
        self.members = tuple(members)
        self._said = tuple(said)
        self._store: MergedStore = MergedStore(  # type: ignore[assignment]
            self.members, scratch, engine, class_map, nsys, limits
        )
        self.hosts = self._store.hosts

    def _no_export(self) -> Export:
        raise QueryError(f"{self.path} is several files; ask one of them")

    @property
    def file_clocks(self) -> tuple[FileClock, ...]:
        """How the clock of each file was put on that of the run."""
        with self._answering():
            return self._store.clocks()

    def frame(
        self,
        view: str,
        columns: tuple[str, ...] | None = None,
        during: tuple[int, int] | None = None,
    ) -> pl.DataFrame:
        """Return a public view as ``Trace`` does, its rows in order whoever worked them out."""
        frame = super().frame(view, columns, during)
        is_key = "kernel_id" in frame.columns and view != "idle_gaps"
        return frame.sort("kernel_id" if is_key else frame.columns, nulls_last=True)

    def rows(self, view: str) -> list[dict[str, Any]]:
        """Return a small view as ``Trace`` does, its rows in order."""
        return self.frame(view).to_dicts()

    def free_memory(self) -> None:
        """Do nothing: what is put together of several files has half of the memory as it is."""

    def has_kernels(self) -> bool:
        """Tell whether the run holds kernels: a file without them is none of its members."""
        return True

    def no_kernels(self) -> MissingDataError:
        """Return the error for a run without kernels."""
        return MissingDataError(f"{self.path} holds no GPU kernels")

    def table_names(self) -> list[str]:
        """Return the names of tables that files hold, and one for each that is not read."""
        others = max(member.other_tables for member in self.members)
        return [*self.source_rows(), *(f"other {number}" for number in range(others))]

    def source_rows(self) -> dict[str, int]:
        """Return how many rows each table has, all files together, where members tell."""
        found: dict[str, int] = {}
        for member in self.members:
            for table, rows in member.tables.items():
                found[table] = found.get(table, 0) + rows
        return found

    def findings(self) -> list[Finding]:
        """Return what was odd about the files, and how their clocks stand to one another."""
        with self._answering():
            clocks = _clock_findings(self.path, self.members, self.file_clocks)
            return [*self._said, *clocks, *self._store.findings()]


class MergedStore:
    """The DuckDB of one run: parts of its files, and the views over them.

    Attributes:
        connection: DuckDB, shut off from everything but what was read.
        hosts: As ``MergedTrace`` has it.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - what reading takes
        self,
        members: Sequence[Member],
        scratch: Path | None,
        engine: Engine,
        class_map: ClassMap,
        nsys: str | None,
        limits: Limits,
    ) -> None:
        self._members = members
        self._engine = engine
        self._class_map = class_map
        self._nsys = nsys
        self._loaded: dict[str, frozenset[str]] = {}
        self._made: set[str] = set()
        self._clocks: tuple[FileClock, ...] | None = None
        self._found: dict[tuple[str, str], Finding] = {}
        self._given: tuple[tuple[tuple[str, str], ...], ...] | None = None
        # What is put together stays while workers work: half of the memory is for it.
        self._limits = replace(limits, memory_bytes=max(LEAST_MEMORY, limits.memory_bytes // 2))
        self._place = ExitStack()
        weakref.finalize(self, self._place.close)
        own = self._place.enter_context(own_folder("trace"))
        self._parts_path = own if scratch is None else self._place.enter_context(_folder(scratch))
        size = sum(size_of(Path(member.path)) for member in members)
        self.connection = connected(self._limits, own, size)
        self._place.enter_context(stoppable(self.connection.interrupt))
        self.hosts = self._prepare()

    # --- as Store has it -----------------------------------------------------------------------

    def relation(self, query: str, *views: str) -> duckdb.DuckDBPyRelation:
        """Return a query's answer, after working out the parts that it needs.

        Raises:
            NsysmoeError: A file cannot be used, or the query needs what parts do not hold.
        """
        self.read_for((query, *views))
        return self._asked(query, *views)

    def close(self) -> None:
        """Free memory and disk."""
        self.connection.close()
        self._place.close()

    def tell(self, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Fill a source table of ``TOLD``; no kept table stands on it."""
        kinds = ", ".join(
            f'"{column.name}" {column.type}' for column in over_parts().sources[table]
        )
        name = table.partition(".")[2]
        self._fill(name, kinds, rows)
        self.connection.execute(f"create or replace view {table} as from run.{name}")

    def fetch(self, query: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query of our own over what is there already."""
        return self.connection.execute(query).fetchall()

    def has_read(self, table: str) -> bool:
        """Tell whether anything of a part has been read."""
        return table in self._loaded

    def read_for(self, *queries: tuple[str, ...]) -> None:
        """Have the parts worked out that queries need."""
        wanted = self._demand(*queries)
        second = {part: wanted.pop(part) for part in SECOND & wanted.keys()}
        needed: list[tuple[str, ...]] = [(_MEETINGS, *_MEETING_VIEWS)]
        if second:
            needed += [(f"select * from {table}", table) for table in GIVEN]
        for part, columns in self._demand(*needed).items():
            wanted[part] = wanted.get(part, frozenset()) | columns
        self._load(wanted)
        self.clocks()
        if any(not columns <= self._columns_of(part) for part, columns in second.items()):
            if self._given is None:
                self._given = self._give()
            self._load(second, self._given)

    def clocks(self) -> tuple[FileClock, ...]:
        """Return how the clock of each file stands to the first's, and put times right by it."""
        if self._clocks is None:
            self.read_for_meetings()
            self._clocks = self._align()
        return self._clocks

    def read_for_meetings(self) -> None:
        """Have the parts worked out that tell which collectives ranks share."""
        self._load(self._demand((_MEETINGS, *_MEETING_VIEWS)))

    def findings(self) -> list[Finding]:
        """Return what was odd about the files, as far as they have been read."""
        return [self._found[key] for key in sorted(self._found)]

    # --- parts ---------------------------------------------------------------------------------

    def _asked(self, query: str, *views: str) -> duckdb.DuckDBPyRelation:
        make(self.connection, over_parts(), self._made, (query, *views))
        return self.connection.sql(query)

    def _demand(self, *queries: tuple[str, ...]) -> dict[str, frozenset[str]]:
        """Return the parts that queries need, with their columns.

        Raises:
            QueryError: A query needs more than parts.
        """
        found: dict[str, frozenset[str]] = {}
        for query, *views in queries:
            for part, columns in over_parts().demand(query, *views).items():
                if part in FIRST | SECOND:
                    more = {_WITH[name] for name in columns if name in _WITH}
                    found[part] = found.get(part, frozenset()) | columns | more
                elif part != FUNCTIONS and part not in TOLD:
                    raise QueryError(
                        f"this needs {part.partition('.')[2]} of all files at once, which is not "
                        "kept of a run of several files; ask one of its files"
                    )
        return found

    def _columns_of(self, part: str) -> frozenset[str]:
        return self._loaded.get(part, frozenset())

    def _load(
        self,
        wanted: dict[str, frozenset[str]],
        given: tuple[tuple[tuple[str, str], ...], ...] | None = None,
    ) -> None:
        missing = {
            part: columns | self._columns_of(part)
            for part, columns in wanted.items()
            if not columns <= self._columns_of(part) or part not in self._loaded
        }
        if not missing:
            return
        made = self._work(missing, given)
        if FUNCTIONS not in self._loaded and any(parts.functions for parts in made):
            self._number_names(made)
        for part, columns in missing.items():
            self._read(part, made)
            self._loaded[part] = columns
            self._show(part)
        self._forget_kept()

    def _work(
        self,
        missing: dict[str, frozenset[str]],
        given: tuple[tuple[tuple[str, str], ...], ...] | None,
    ) -> list[Parts]:
        ordered = catalogue().columns
        wanted = tuple(
            (part, tuple(name for name in ordered(part) if name in columns))
            for part, columns in sorted(missing.items())
        )
        jobs = [
            PartJob(
                member.path,
                str(self._parts_path),
                wanted,
                given[number] if given else (),
                self._class_map,
                self._nsys,
                self._engine.share(len(self._members), self._limits),
            )
            for number, member in enumerate(self._members)
        ]
        made = self._engine.map(make_parts, jobs)
        for parts in made:
            self._found |= {(one.code, one.message): one for one in parts.findings}
        return made

    def _read(self, part: str, made: Sequence[Parts]) -> None:
        """Put the rows of a part there as they came, the number of their file beside them."""
        import pyarrow.parquet as pq  # noqa: PLC0415

        table = _stored(part)
        self.connection.execute(f"drop table if exists {table}")
        for number, parts in enumerate(made):
            path = Path(parts.files[part])
            if not path.exists():
                raise InputError(
                    f"what a worker wrote is not at {path.parent} of {socket.gethostname()}: name "
                    "a folder that all nodes share with --scratch"
                )
            with pq.ParquetFile(path) as file:
                batches = file.iter_batches()
                reader = _reader(file.schema_arrow, batches)
                self.connection.register("incoming", reader)
                verb = f"create table {table} as" if number == 0 else f"insert into {table}"
                try:
                    self.connection.execute(f"{verb} select {number} as file, * from incoming")
                finally:
                    self.connection.unregister("incoming")
            path.unlink(missing_ok=True)

    def _show(self, part: str) -> None:
        """Put a part behind the name of its view: times on one clock, ids of one numbering."""
        there = self._columns_of(part)
        kinds = catalogue().column_types(part).items()
        told = {name: _expression(part, name, kind) for name, kind in kinds if name in there}
        listed = ", ".join(
            f"{told.get(name, f'null::{kind}')} as {_quoted(name)}" for name, kind in kinds
        )
        joins = "inner join run.files as files on parts.file = files.file"
        if high := next((name for name in ("global_pid", "vm_id") if name in there), None):
            joins += (
                " left join run.machines as machines on parts.file = machines.file "
                f"and parts.{high} >> 48 = machines.high"
            )
        if part in NAMED and "name_id" in there:
            joins += (
                " left join run.names as names on parts.file = names.file "
                "and parts.name_id = names.name_id"
            )
        if "nccl_communicator" in there:
            joins += (
                " left join run.communicators as communicators on parts.file = communicators.file "
                "and parts.nccl_communicator = communicators.number"
            )
        self.connection.execute(
            f"create or replace view {part} as select {'distinct' if part in OF_A_HOST else ''} "
            f"{listed} from {_stored(part)} as parts {joins}"
        )

    # --- what is one numbering over all files --------------------------------------------------

    def _prepare(self) -> dict[int, str]:
        """Create what parts are joined with, and return the names of machines."""
        for schema in (*SCHEMAS, "loaded", "run"):
            self.connection.execute(f"create schema {schema}")
        for name, script in over_parts().scripts.items():
            if script.is_source:
                kinds = over_parts().sources[name]
                nulls = ", ".join(f'null::{c.type} as "{c.name}"' for c in kinds)
                self.connection.execute(f"create view {name} as select {nulls} where false")
                self._made.add(name)
        machines, hosts = _machines(self._members)
        self._fill("machines", "file integer, high bigint, machine bigint", machines)
        self._fill(
            "files",
            "file integer, machine bigint, shift_ns bigint, zero_ns bigint, offset_ns double, "
            "drift double",
            [
                (number, machines_of(machines, number), shift, 0, 0.0, 0.0)
                for number, shift in enumerate(_shifts(self._members))
            ],
        )
        self._fill("names", "file integer, name_id bigint, number bigint", [])
        self._fill("communicators", "file integer, number usmallint, overall usmallint", [])
        return hosts

    def _fill(self, table: str, columns: str, rows: Iterable[tuple[Any, ...]]) -> None:
        import pyarrow as pa  # noqa: PLC0415

        self.connection.execute(f"create or replace table run.{table} ({columns})")
        if values := list(rows):
            # At once: a statement a row takes minutes for the names of a thousand files.
            told = {
                str(place): list(column) for place, column in enumerate(zip(*values, strict=True))
            }
            self.connection.register("incoming", pa.table(told))
            try:
                self.connection.execute(f"insert into run.{table} from incoming")
            finally:
                self.connection.unregister("incoming")

    def _number_names(self, made: Sequence[Parts]) -> None:
        """Number names and communicators over all files, as one file would have been."""
        rows = {row[1]: row[1:] for parts in made for row in parts.functions}
        names = {name: number for number, name in enumerate(sorted(rows, key=str.encode))}
        columns = over_parts().sources[FUNCTIONS]
        kinds = ", ".join(f'"{column.name}" {column.type}' for column in columns)
        self._fill("functions", kinds, ((names[name], *rest) for name, rest in rows.items()))
        self.connection.execute(f"create or replace view {FUNCTIONS} as from run.functions")
        self._fill(
            "names",
            "file integer, name_id bigint, number bigint",
            (
                (number, row[0], names[row[1]])
                for number, parts in enumerate(made)
                for row in parts.functions
            ),
        )
        texts = sorted({text for parts in made for _, text in parts.communicators}, key=str.encode)
        overall = {text: number for number, text in enumerate(texts, 1)}
        self._fill(
            "communicators",
            "file integer, number usmallint, overall usmallint",
            (
                (number, own, overall[text])
                for number, parts in enumerate(made)
                for own, text in parts.communicators
            ),
        )
        self._loaded[FUNCTIONS] = frozenset(column.name for column in columns)

    def _align(self) -> tuple[FileClock, ...]:
        """Fit the clocks of files, and have all times told by the first one's from here on."""
        import polars as pl  # noqa: PLC0415

        from nsysmoe.trace.file_clocks import align_files  # noqa: PLC0415 - numpy

        ends = pl.from_arrow(self._asked(_MEETINGS, *_MEETING_VIEWS).to_arrow_table())
        assert isinstance(ends, pl.DataFrame)  # noqa: S101 - a table is never a series
        numbers = {member.machine: place for place, member in enumerate(self._members)}
        clocks = align_files(ends, [numbers[member.machine] for member in self._members])
        for clock in clocks:
            if clock.is_applied:
                self.connection.execute(
                    "update run.files set zero_ns = ?, offset_ns = ?, drift = ? where file = ?",
                    [clock.zero_ns, clock.offset_ns, clock.drift_ppm / 1e6, clock.file],
                )
        self._forget_kept()
        return tuple(clocks)

    def _forget_kept(self) -> None:
        """Drop the kept tables: they stand on times or columns that are others now."""
        scripts = over_parts().scripts
        for name in [name for name in self._made if scripts[name].is_kept]:
            self.connection.execute(f"drop table {name}")
            self._made.discard(name)

    def _give(self) -> tuple[tuple[tuple[str, str], ...], ...]:
        """Write for each file what was found out over all, in its own numbers and times."""
        import pyarrow.parquet as pq  # noqa: PLC0415

        found: list[list[tuple[str, str]]] = [[] for _ in self._members]
        for table, part in zip(GIVEN, (_MOE, _EVENTS), strict=True):
            own = ["kernel_id", "global_pid", "start_ns"]
            own += ["end_ns"] if part == _EVENTS else []
            listed = ", ".join(f"own.{name} as {name}" for name in own)
            self._asked(f"select * from {table}", table)
            for number in range(len(self._members)):
                rows = self.connection.sql(
                    f"select told.* replace ({listed}) from {table} as told "
                    f"inner join {_stored(part)} as own "
                    f"on told.kernel_id = own.kernel_id + (own.file::bigint << {FILE_BITS}) "
                    f"where own.file = {number}"
                )
                path = self._parts_path / f"{number}-{table}.parquet"
                pq.write_table(rows.to_arrow_table(), path)
                found[number].append((table, str(path)))
        return tuple(tuple(given) for given in found)


@cache
def over_parts() -> Catalogue:
    """Return the catalogue in which the parts are sources; it is built once a process."""
    return catalogue().over_parts(FIRST | SECOND)


def _stored(part: str) -> str:
    return f'loaded."{part.partition(".")[2]}"'


def _quoted(name: str) -> str:
    return f'"{name}"'


def _reader(schema: Any, batches: Iterable[Any]) -> Any:
    import pyarrow as pa  # noqa: PLC0415

    return pa.RecordBatchReader.from_batches(schema, batches)


def _expression(part: str, name: str, kind: str) -> str:
    """Return what a column of a part is over all files."""
    numbered = {
        **{
            row: f"parts.{row} + (parts.file::bigint << {FILE_BITS})"
            for row in ("kernel_id", "graph_launch_id")
        },
        "nccl_communicator": "communicators.overall",
        **({"name_id": "names.number"} if part in NAMED else {}),
    }
    if name in {"global_pid", "global_tid", "vm_id"}:
        low = f"coalesce(parts.{name}, (parts.file::bigint + 1) << 24) & {(1 << 48) - 1}"
        # Not shifted left: ids of hardware 128 and more are negative.
        return f"(coalesce(machines.machine, files.machine) * {1 << 48}) | ({low})"
    if name in {"start_ns", "first_start_ns"}:
        return _on_one_clock(f"parts.{name}")
    if name in _WITH:
        # A duration is as long on every clock: what the correction adds to it is none of its own.
        start = f"parts.{_WITH[name]}"
        return f"{_on_one_clock(start)} + (parts.{name} - {start})"
    return numbered.get(name, f"parts.{_quoted(name)}::{kind}")


def _on_one_clock(time: str) -> str:
    shifted = f"({time} + files.shift_ns)"
    off = f"files.offset_ns + files.drift * ({shifted} - files.zero_ns)"
    return f"{shifted} - round({off})::bigint"


def _machines(members: Sequence[Member]) -> tuple[list[tuple[int, int, int]], dict[int, str]]:
    """Number machines; those of one host keep what nsys wrote.

    Returns:
        (file, top 16 bits of its ids, number) each; number to name, empty for one host.
    """
    highs = [
        (number, member.machine, (rank[0] or 0) >> 48)
        for number, member in enumerate(members)
        for rank in member.ranks
    ]
    if len({machine for _, machine, _ in highs}) == 1:
        return sorted({(number, high, high) for number, _, high in highs}), {}
    order = dict.fromkeys((machine, high) for _, machine, high in highs)
    numbers = {key: number for number, key in enumerate(order, 1)}
    names = labelled(members)
    return (
        sorted({(number, high, numbers[machine, high]) for number, machine, high in highs}),
        {numbers[machine, high]: names[number] for number, machine, high in highs},
    )


def machines_of(machines: Sequence[tuple[int, int, int]], file: int) -> int:
    """Return the machine of a file's ids that belong to no rank of it."""
    return next(machine for number, _, machine in machines if number == file)


def _shifts(members: Sequence[Member]) -> list[int]:
    """Return what is added to each file's times: UTC, less the first zero of all.

    A file whose UTC is not known begins with the first one.
    """
    known = [member.utc_ns for member in members if member.utc_ns is not None]
    zero = min(known, default=0)
    first = members[0]
    begun = first.first_ns + ((first.utc_ns - zero) if first.utc_ns is not None else 0)
    return [
        begun - member.first_ns if member.utc_ns is None else member.utc_ns - zero
        for member in members
    ]


@contextmanager
def _folder(scratch: Path) -> Iterator[Path]:
    """Make a folder for parts where all nodes see it; locks may not work there."""
    try:
        scratch.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(prefix="nsysmoe-", dir=scratch.absolute())
    except OSError as error:
        raise InputError(
            f"{scratch} cannot be written ({error.strerror}); name another folder with --scratch"
        ) from error
    with folder as name, undone(folder.cleanup):
        yield Path(name)


def _clock_findings(
    path: Path, members: Sequence[Member], clocks: Sequence[FileClock]
) -> list[Finding]:
    """Say how the clocks of the files were put on one, and what that leaves unsure."""
    rows = [
        {
            "source": member.path,
            "host": member.host,
            "meetings": clock.meetings,
            "offset_ns": clock.offset_ns,
            "drift_ppm": clock.drift_ppm,
            "residual_ns": clock.residual_ns,
            "is_applied": clock.is_applied,
        }
        for member, clock in zip(members, clocks, strict=True)
    ]
    fitted = [clock for clock in clocks if clock.reference is not None]
    unknown = [row["source"] for row in rows if row["residual_ns"] is None]
    found = []
    if fitted:
        worst = max(clock.residual_ns or 0.0 for clock in fitted)
        furthest = max(abs(clock.offset_ns) for clock in fitted)
        found.append(
            Finding(
                "clocks_of_files",
                "info",
                f"clocks of {len(members)} files agree to {worst / 1e3:,.1f} us by the ends of "
                f"collectives that they share (beyond UTC up to {furthest / 1e3:,.1f} us off, "
                f"{sum(clock.is_applied for clock in fitted)} corrected): a skew below that is "
                "not evidence",
                {"files": rows, "residual_ns": worst},
            )
        )
    if unknown:
        found.append(
            Finding(
                "clocks_by_utc_alone",
                "warning",
                f"{len(unknown)} of {len(members)} files of {path} share too few collectives with "
                f"the others to compare clocks ({unknown[0]}): they stand on UTC alone, which is "
                "off by milliseconds as a rule; who waited for whom is not known",
                {"files": rows},
            )
        )
    return found
