"""Keeping a pasted query from doing anything but reading the views."""

from __future__ import annotations

from typing import TYPE_CHECKING

import duckdb

from nsysmoe.errors import QueryError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


def close_connection(connection: DuckDBPyConnection) -> None:
    """Shut a connection off from files, network, extensions and its own settings, for good."""
    for setting in (
        "set autoinstall_known_extensions = false",
        "set autoload_known_extensions = false",
        "set allow_community_extensions = false",
        "set python_enable_replacements = false",
        "set preserve_insertion_order = false",
        "set enable_external_access = false",
        "set lock_configuration = true",
    ):
        connection.execute(setting)


def check_closed(connection: DuckDBPyConnection, query: str) -> None:
    """Refuse anything but one SELECT.

    Raises:
        QueryError: The text is empty, several statements, or one that is no SELECT.
    """
    try:
        statements = connection.extract_statements(query)
    except duckdb.Error as error:
        raise QueryError(f"the query is not valid SQL: {error}") from error
    if len(statements) != 1:
        raise QueryError("give one SELECT statement; there are " + str(len(statements)))
    kind = statements[0].type
    if kind != duckdb.StatementType.SELECT:
        raise QueryError(
            f"only SELECT may be asked, not {kind.name}; `nsysmoe views` lists the views"
        )
