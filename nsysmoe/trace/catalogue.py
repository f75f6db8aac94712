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
from threading import Lock
from typing import TYPE_CHECKING, Any

import duckdb

from nsysmoe.trace.closed import close_connection

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.abc import Traversable

LAYERS = ("source", "staging", "intervals", "marts")
SCHEMAS = ("nsys", "nsysmoe", "staging", "intervals")
_REFERENCE = re.compile(r"\b(?:from|join|references)\s+((?:nsys|nsysmoe|staging|intervals|main)\.\w+)")


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


class Catalogue:
    """The empty tables and the views over them, in a DuckDB of their own."""

    def __init__(self, scripts: list[str]) -> None:
        self._lock = Lock()
        self._connection = duckdb.connect(":memory:", config={"threads": "1"})
        for schema in SCHEMAS:
            self._connection.execute(f"create schema {schema}")
        for script in scripts:
            self._connection.execute(script).fetchall()
        self.sources = self._read_sources()
        self.view_definitions = [
            row[0]
            for row in self._rows(
                "select sql from duckdb_views() where not internal order by view_oid"
            )
        ]
        self._prune_only_columns()
        # Queries of users are planned here: planning alone can open a file.
        close_connection(self._connection)

    def demand(self, query: str) -> Demand:
        """Return which source columns a query reads.

        The query is planned here with column pruning as the one optimisation, so that nothing is
        folded away because the tables are empty; the scans of the plan name the columns. A scan
        that names none (DuckDB 1.5 leaves some lists out) counts as reading them all.

        Raises:
            duckdb.Error: The query is not valid over the views.
        """
        with self._lock:
            rows = self._rows(f"explain (format json) {query}")
        wanted: dict[str, set[str]] = {}
        for plan in json.loads(rows[0][1]):
            for table, columns in self._scans(plan):
                wanted.setdefault(table, set()).update(columns)
        return {table: frozenset(columns) for table, columns in wanted.items()}

    def views(self, *, public_only: bool = True) -> list[View]:
        """Return the views with their comments, the public ones in ``main`` first."""
        with self._lock:
            views = self._rows(
                "select schema_name, view_name, comment from duckdb_views() where not internal"
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
            table = self._source_name(info["Table"].rpartition(".")[2])
            projected = info.get("Projections") or [c.name for c in self.sources[table]]
            yield table, {projected} if isinstance(projected, str) else set(projected)
        for child in plan["children"]:
            yield from self._scans(child)

    def _source_name(self, table: str) -> str:
        return next(name for name in self.sources if name.partition(".")[2] == table)

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
        return f"nsysmoe.{name}" if name == "kernel_functions" else f"nsys.{name}"
    return f"{'main' if layer == 'marts' else layer}.{name}"


def _ordered(scripts: dict[str, str]) -> list[str]:
    sorter = TopologicalSorter(
        {name: set(_REFERENCE.findall(text)) & scripts.keys() for name, text in scripts.items()}
    )
    return [scripts[name] for name in sorter.static_order()]
