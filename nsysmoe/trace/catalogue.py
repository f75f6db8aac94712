"""The files of ``sql/``, run once over empty tables: what the views are and what they need.

This catalogue answers three questions without any trace: which columns an export must or may
have (``sql/source``), which of them a query reads (its plan says), and what every view and column
means (their comments).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from graphlib import TopologicalSorter
from importlib import resources
from threading import Lock, RLock
from typing import TYPE_CHECKING, Any

import duckdb

from nsysmoe.trace.closed import close_connection

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from importlib.abc import Traversable

LAYERS = ("source", "staging", "intervals", "marts")
SCHEMAS = ("nsys", "nsysmoe", "staging", "intervals")
# Sources that nsysmoe fills itself; the others are tables of nsys's.
_MADE_HERE = ("kernel_functions", "nccl_ranges", "phase_partings", "clock_residual")
_REFERENCE = re.compile(
    r"\b(?:from|join|references)\s+((?:nsys|nsysmoe|staging|intervals|main)\.\w+)"
)

# The first statement ends at the first semicolon that ends a line.
_KEPT = re.compile(
    r"(?:-- led by (?P<leader>\S+)\n)?(?:-- in parts of (?P<parts>\S+)\n)?"
    r"create table \S+ as\n(?P<body>.*?);\n",
    re.DOTALL,
)


@dataclass(frozen=True)
class Column:
    """A column of a source table; ``is_needed`` where an export without it cannot be used."""

    name: str
    type: str
    is_needed: bool
    is_string_id: bool


@dataclass(frozen=True)
class ViewColumn:
    """A column of a view with its DuckDB type and its comment."""

    name: str
    type: str
    comment: str


@dataclass(frozen=True)
class View:
    """A view with its comment; ``schema`` is ``main`` for the public ones."""

    schema: str
    name: str
    comment: str
    columns: tuple[ViewColumn, ...]


Demand = dict[str, frozenset[str]]
"""Source table (``nsys.StringIds``) to the columns that a query reads of it."""


@dataclass(frozen=True)
class Script:
    """One file of ``sql/``.

    ``is_kept`` where it creates a table from a query: worked out once a trace, since several
    views stand on it, while a view is worked out again by each of them. ``leader`` is a source
    without whose rows a kept table has none: nothing else is then read for it. ``parts`` is a view
    of ranges (``low``, ``high``) for each of which a kept table's query is asked on its own, the
    variables ``low`` and ``high`` set: joins of one range stay in memory.
    """

    name: str
    text: str
    is_source: bool
    is_kept: bool
    leader: str | None
    parts: str | None
    references: frozenset[str]


class Catalogue:
    """The empty tables and the views over them, in a DuckDB of their own.

    Views are made when a query first reaches them: binding all of them takes longer than many
    a question.
    """

    def __init__(self, scripts: list[Script]) -> None:
        self._lock = RLock()
        self._connection = duckdb.connect(":memory:", config={"threads": "1"})
        self.scripts = {script.name: script for script in scripts}
        self._made: set[str] = set()
        self._documented: set[str] = set()
        self._known_plans: dict[str, list[dict[str, Any]]] = {}
        self._kept_demand: dict[tuple[str, frozenset[str]], dict[str, set[str]]] = {}
        self._known_columns: dict[str, dict[str, str]] = {}
        for schema in SCHEMAS:
            self._connection.execute(f"create schema {schema}")
        self._make([script.name for script in scripts if script.is_source])
        self.sources = self._read_sources()
        self._prune_only_columns()
        # Queries of users are planned here: planning alone can open a file.
        close_connection(self._connection)

    def demand(self, query: str, *views: str, without: frozenset[str] = frozenset()) -> Demand:
        """Return which source columns a query reads.

        The query is planned here with column pruning as the one optimisation, so that nothing is
        folded away because the tables are empty; the scans of the plan name the columns. A scan
        that names none (DuckDB 1.5 leaves some lists out) counts as reading them all.

        Args:
            query: Any SELECT.
            views: What it reads (``main.moe_kernels``); all views may be read where left out.
            without: Kept tables that are known to be empty.

        Raises:
            duckdb.Error: The query is not valid over the views.
        """
        with self._lock:
            self._make(self.reached(*views))
            wanted = self._planned(query, without)
        return {table: frozenset(columns) for table, columns in wanted.items()}

    def kept(self, query: str, *views: str, without: frozenset[str] = frozenset()) -> list[str]:
        """Return the kept tables that a query stands on, each after those that it stands on.

        Args:
            query: Any SELECT.
            views: What it reads; all views may be read where left out.
            without: Kept tables that are there already, whatever they stand on.
        """
        with self._lock:
            self._make(self.reached(*views))
            scanned = {table for plan in self._plans(query) for table, _ in self._scans(plan)}
        found = [name for name in scanned if self.scripts[name].is_kept]
        reached = self.reached(*found, without=without) if found else []
        return [name for name in reached if self.scripts[name].is_kept]

    def reached(self, *views: str, without: frozenset[str] = frozenset()) -> list[str]:
        """Return the objects that views stand on, themselves included, in order of creation.

        What ``without`` names is reached, and what only it stands on is not.
        """
        if not views:
            return list(self.scripts)
        wanted = set(views)
        for name in reversed(list(self.scripts)):
            if name in wanted and name not in without:
                wanted |= self.scripts[name].references
        return [name for name in self.scripts if name in wanted]

    def columns(self, view: str) -> list[str]:
        """Return the columns of a view or kept table, such as ``main.moe_kernels``."""
        return list(self.column_types(view))

    def column_types(self, view: str) -> dict[str, str]:
        """Return the columns of a view or kept table with DuckDB's types."""
        with self._lock:
            if view not in self._known_columns:
                # Asked with every frame, and DuckDB looks through the columns of all views.
                self._known_columns[view] = self._read_columns(view)
            return dict(self._known_columns[view])

    def over_parts(self, parts: Iterable[str]) -> Catalogue:
        """Return the catalogue of a run of several files, in which some views are sources.

        Args:
            parts: Views that are worked out file by file; the others stand on them.
        """
        scripts = [
            _as_source(name, self.column_types(name)) if name in parts else script
            for name, script in self.scripts.items()
        ]
        return Catalogue(scripts)

    def public_views(self) -> list[str]:
        """Return the names of the public views, sorted."""
        return sorted(name[5:] for name in self.scripts if name.startswith("main."))

    def views(self, *, public_only: bool = True) -> list[View]:
        """Return the views with their comments, the public ones in ``main`` first."""
        with self._lock:
            self._make(list(self.scripts))
            self._document()
            views = self._rows(
                "select schema_name, view_name, comment from duckdb_views() where not internal "
                "union all select schema_name, table_name, comment from duckdb_tables() "
                "where schema_name not in ('nsys', 'nsysmoe')"
            )
            columns = self._rows(
                "select schema_name, table_name, column_name, data_type, comment "
                "from duckdb_columns() where not internal order by column_index"
            )
        return sorted(
            (
                View(
                    schema,
                    name,
                    comment or "",
                    tuple(
                        ViewColumn(c, t, text or "")
                        for s, v, c, t, text in columns
                        if (s, v) == (schema, name)
                    ),
                )
                for schema, name, comment in views
                if schema == "main" or not public_only
            ),
            key=lambda view: (view.schema != "main", view.schema, view.name),
        )

    def _make(self, names: list[str]) -> None:
        for name in names:
            if name not in self._made:
                self._connection.execute(statement_of(self.scripts[name])).fetchall()
                self._made.add(name)

    def _document(self) -> None:
        """Put the comments on views and columns; they take a third of the time of making them."""
        for name, script in self.scripts.items():
            if name not in self._documented:
                self._connection.execute(script.text[len(statement_of(script)) :])
                self._documented.add(name)

    def leaders(self, *views: str) -> dict[str, str]:
        """Return the kept tables that views stand on and a source leads, with that source."""
        found = (self.scripts[name] for name in self.reached(*views))
        return {script.name: script.leader for script in found if script.leader is not None}

    def _planned(self, query: str, without: frozenset[str]) -> dict[str, set[str]]:
        """Return the source columns of a query and of the kept tables that it stands on."""
        wanted: dict[str, set[str]] = {}
        for plan in self._plans(query):
            for table, columns in self._scans(plan):
                for source, names in self._sources_of(table, columns, without).items():
                    wanted.setdefault(source, set()).update(names)
        return wanted

    def _sources_of(
        self, table: str, columns: set[str], without: frozenset[str]
    ) -> dict[str, set[str]]:
        script = self.scripts[table]
        if not script.is_kept:
            return {table: columns}
        if table in without:
            return {}
        key = (table, without)
        if key not in self._kept_demand:
            self._kept_demand[key] = self._planned(body_of(script), without)
        return self._kept_demand[key]

    def _plans(self, query: str) -> list[dict[str, Any]]:
        """Plan a query; once, since ``demand`` and ``kept`` and both arms ask for the same."""
        if query not in self._known_plans:
            (row,) = self._rows(f"explain (format json) {query}")
            self._known_plans[query] = json.loads(row[1])
        return self._known_plans[query]

    def _read_columns(self, view: str) -> dict[str, str]:
        self._make(self.reached(view))
        # duckdb_columns() would bind every view there is.
        return {name: kind for name, kind, *_ in self._rows(f"describe {view}")}

    def _read_sources(self) -> dict[str, tuple[Column, ...]]:
        string_ids = {
            (f"{schema}.{table}", column)
            for schema, table, columns in self._rows(
                "select schema_name, table_name, constraint_column_names from duckdb_constraints() "
                "where constraint_type = 'FOREIGN KEY'"
            )
            for column in columns
        }
        sources: dict[str, list[Column]] = {}
        for schema, table, column, kind, is_nullable in self._rows(
            "select c.schema_name, c.table_name, c.column_name, c.data_type, c.is_nullable "
            "from duckdb_columns() as c join duckdb_tables() as t using (schema_name, table_name) "
            "where not c.internal order by c.column_index"
        ):
            name = f"{schema}.{table}"
            is_string_id = (name, column) in string_ids
            sources.setdefault(name, []).append(Column(column, kind, not is_nullable, is_string_id))
        return {name: tuple(columns) for name, columns in sources.items()}

    def _prune_only_columns(self) -> None:
        others = [
            row[0]
            for row in self._rows("select name from duckdb_optimizers()")
            if row[0] != "unused_columns"
        ]
        self._connection.execute(f"set disabled_optimizers = '{','.join(others)}'")

    def _scans(self, plan: dict[str, Any]) -> Iterator[tuple[str, set[str]]]:
        info = plan.get("extra_info", {})
        if plan["name"].strip() == "SEQ_SCAN":
            # Up to 1.x the plan names the table alone, from 2.0 on database and schema too.
            table = self._full_name(info["Table"].rpartition(".")[2])
            known = [c.name for c in self.sources.get(table, ())]
            projected = info.get("Projections") or known
            yield table, {projected} if isinstance(projected, str) else set(projected)
        for child in plan["children"]:
            yield from self._scans(child)

    def _full_name(self, table: str) -> str:
        return next(name for name in self.scripts if name.partition(".")[2] == table)

    def _rows(self, query: str) -> list[tuple[Any, ...]]:
        return self._connection.execute(query).fetchall()


_building = Lock()


def catalogue() -> Catalogue:
    """Return the catalogue of the shipped ``sql/``; it is built once a process."""
    # functools.cache alone would let two threads build it side by side.
    with _building:
        return _catalogue()


@cache
def _catalogue() -> Catalogue:
    return Catalogue(_ordered(_scripts()))


def body_of(script: Script) -> str:
    """Return the query that a kept table is made from."""
    statement = _KEPT.match(script.text)
    assert statement is not None  # noqa: S101 - is_kept says so
    return statement["body"]


def statement_of(script: Script) -> str:
    """Return the statement that makes an object, without the comments that document it."""
    statement, semicolon, _ = script.text.partition(";\n")
    return statement + semicolon


def empty_table(name: str, columns: dict[str, str]) -> str:
    """Return the statement that creates a table without rows, of columns with their types."""
    listed = ", ".join(f'"{column}" {kind}' for column, kind in columns.items())
    return f"create table {name} ({listed});"


def _as_source(name: str, columns: dict[str, str]) -> Script:
    """Return the script of an empty table with the columns of a view."""
    text = empty_table(name, columns)
    return Script(
        name, text, is_source=True, is_kept=False, leader=None, parts=None, references=frozenset()
    )


def _scripts() -> dict[str, str]:
    """Return script texts by the name of the object that each makes, layer by layer."""
    root = resources.files("nsysmoe").joinpath("sql")
    return {
        _object_name(layer, file): file.read_text(encoding="utf-8")
        for layer in LAYERS
        for file in sorted(root.joinpath(layer).iterdir(), key=lambda file: file.name)
        if file.name.endswith(".sql")
    }


def _object_name(layer: str, file: Traversable) -> str:
    name = file.name.removesuffix(".sql")
    if layer == "source":
        return f"nsysmoe.{name}" if name in _MADE_HERE else f"nsys.{name}"
    return f"{'main' if layer == 'marts' else layer}.{name}"


def _ordered(texts: dict[str, str]) -> list[Script]:
    kept = {name: _KEPT.match(text) for name, text in texts.items()}
    parts = {name: found and found["parts"] for name, found in kept.items()}
    references = {
        name: frozenset([*_REFERENCE.findall(text), parts[name]]) & texts.keys()
        for name, text in texts.items()
    }
    return [
        Script(
            name,
            texts[name],
            is_source=name.startswith(("nsys.", "nsysmoe.")),
            is_kept=(found := kept[name]) is not None,
            leader=found and found["leader"],
            parts=parts[name],
            references=references[name],
        )
        for name in TopologicalSorter(references).static_order()
    ]
