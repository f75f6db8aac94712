"""Traces of hardware whose number makes ids negative."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def on_hardware_128(path: Path) -> Path:
    """Add 128 to the number of the hardware in every id of an export, in place."""
    with closing(sqlite3.connect(path)) as database:
        columns = database.execute(
            "select tables.name, columns.name from sqlite_master as tables, "
            "pragma_table_info(tables.name) as columns where tables.type = 'table' "
            "and columns.name in ('globalPid', 'globalTid', 'vmId')"
        ).fetchall()
        for table, column in columns:
            database.execute(f'update "{table}" set {column} = {column} | ?', (-(1 << 63),))
        database.commit()
    return path
