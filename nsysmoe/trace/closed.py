"""Keeping a pasted query from doing anything but reading the views."""

from __future__ import annotations

import json
import os
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from nsysmoe.errors import QueryError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from duckdb import DuckDBPyConnection

# All others are refused by name, before they are planned: some act when they are merely read,
# such as enable_logging, which DuckDB 1.5 lets write files even when its settings are locked.
_ALLOWED_TABLE_FUNCTIONS = {"range", "generate_series", "unnest"}


def close_connection(connection: DuckDBPyConnection, spill: Path | None = None) -> None:
    """Shut a connection off from files, network, extensions and its own settings, for good.

    Args:
        connection: Any.
        spill: The folder that it may spill to; one that is never made where left out.
    """
    for setting in (
        # It would be drawn on stdout, in the middle of a report.
        "set enable_progress_bar = false",
        "set autoinstall_known_extensions = false",
        "set autoload_known_extensions = false",
        "set allow_community_extensions = false",
        "set python_enable_replacements = false",
        "set preserve_insertion_order = false",
        f"set temp_directory = '{_quoted(spill or _nowhere())}'",
        "set enable_external_access = false",
        "set lock_configuration = true",
    ):
        connection.execute(setting)


def _nowhere() -> Path:
    """Return a folder to spill to: never the user's working directory, which is the default."""
    return Path(tempfile.gettempdir()) / f"nsysmoe-{os.getpid()}-{uuid.uuid4().hex}"


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")


def check_closed(connection: DuckDBPyConnection, query: str) -> None:
    """Refuse anything but one SELECT over views.

    Raises:
        QueryError: The text is empty, several statements, one that is no SELECT, or one that
            calls a table function other than ``range``, ``generate_series`` and ``unnest``.
    """
    try:
        statements = connection.extract_statements(query)
    except duckdb.Error as error:
        raise QueryError(f"the query is not valid SQL: {error}") from error
    if len(statements) != 1:
        raise QueryError(f"give one SELECT statement; there are {len(statements)}")
    kind = statements[0].type
    if kind != duckdb.StatementType.SELECT:
        raise QueryError(
            f"only SELECT may be asked, not {kind.name}; `nsysmoe views` lists the views"
        )
    (text,) = connection.execute("select json_serialize_sql(?::varchar)", [query]).fetchall()[0]
    for name in _table_functions(json.loads(text)):
        if name.lower() not in _ALLOWED_TABLE_FUNCTIONS:
            raise QueryError(
                f"the table function {name} may not be called; `nsysmoe views` lists what there "
                "is to read"
            )


def _table_functions(tree: Any) -> Iterator[str]:
    """Yield the names of all table functions that a parsed statement calls."""
    if isinstance(tree, dict):
        if tree.get("type") == "TABLE_FUNCTION":
            yield tree["function"]["function_name"]
        tree = list(tree.values())
    if isinstance(tree, list):
        for part in tree:
            yield from _table_functions(part)
