"""Damage that SQLite itself would write: other types, tables gone, rows doubled, odd values."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

from tests.fuzz.hostile import INTEGERS, MEBIBYTE, NAMES, NOT_INTEGERS

if TYPE_CHECKING:
    import random
    from collections.abc import Callable
    from pathlib import Path

_KERNELS = "CUPTI_ACTIVITY_KIND_KERNEL"
_TIMED = (
    _KERNELS, _KERNELS, "CUPTI_ACTIVITY_KIND_RUNTIME", "NVTX_EVENTS", "CUPTI_ACTIVITY_KIND_MEMCPY",
)  # fmt: skip


class Target:
    """A trace that is being changed, and the draws that say how."""

    def __init__(self, database: sqlite3.Connection, chosen: random.Random) -> None:
        self.database = database
        self.chosen = chosen

    def tables(self) -> list[str]:
        query = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        return sorted(row[0] for row in self.database.execute(query))

    def columns(self, table: str) -> list[str]:
        return [row[1] for row in self.database.execute(f'PRAGMA table_info("{table}")')]

    def table(self) -> str:
        """Return a table, those that matter more often."""
        there = self.tables()
        likely = [name for name in (*_TIMED, "StringIds") if name in there]
        return self.chosen.choice(likely if likely and self.chosen.random() < 0.7 else there)

    def timed(self) -> str:
        there = [name for name in _TIMED if name in self.tables()]
        return self.chosen.choice(there)

    def rows(self, table: str) -> list[int]:
        """Return the numbers of some rows: one, a few, or all."""
        known = [row[0] for row in self.database.execute(f'SELECT rowid FROM "{table}"')]
        return self.chosen.sample(known, min(len(known), self.chosen.choice((1, 1, 3, 50, 10**6))))

    def loosen(self, table: str) -> None:
        """Make the table again without types, keys and rules, so that it takes any value."""
        if self.columns(table):
            names = ", ".join(f'"{column}"' for column in self.columns(table))
            self.database.execute(f'CREATE TABLE "loose" ({names})')
            self.database.execute(f'INSERT INTO "loose" SELECT * FROM "{table}"')
            self.database.execute(f'DROP TABLE "{table}"')
            self.database.execute(f'ALTER TABLE "loose" RENAME TO "{table}"')

    def set(self, table: str, column: str, values: list[Any]) -> int:
        """Set a column of some rows to values drawn from a list; return how many."""
        rows = self.rows(table)
        self.database.executemany(
            f'UPDATE "{table}" SET "{column}" = ? WHERE rowid = ?',
            [(self.chosen.choice(values), row) for row in rows],
        )
        return len(rows)


def types_swapped(target: Target) -> str:
    table = target.table()
    target.loosen(table)
    column = target.chosen.choice(target.columns(table))
    count = target.set(table, column, [target.chosen.choice(NOT_INTEGERS)])
    return f"{count} values of another type in {table}.{column}"


def table_dropped(target: Target) -> str:
    table = target.table()
    target.database.execute(f'DROP TABLE "{table}"')
    return f"{table} dropped"


def table_emptied(target: Target) -> str:
    table = target.table()
    target.database.execute(f'DELETE FROM "{table}"')
    return f"{table} emptied"


def column_dropped(target: Target) -> str:
    table = target.table()
    target.loosen(table)
    column = target.chosen.choice(target.columns(table))
    if len(target.columns(table)) > 1:
        target.database.execute(f'ALTER TABLE "{table}" DROP COLUMN "{column}"')
    return f"{table}.{column} dropped"


def renamed(target: Target) -> str:
    table = target.table()
    column = target.chosen.choice(target.columns(table))
    name = target.chosen.choice((column.upper(), f"{column} ", 'x"; --', "rowid", "é"))
    if name.lower() not in {each.lower() for each in target.columns(table) if each != column}:
        target.database.execute(
            f'ALTER TABLE "{table}" RENAME COLUMN "{column}" TO "{name.replace(chr(34), "")}"'
        )
    return f"{table}.{column} called {name!r}"


def replaced_by_view(target: Target) -> str:
    table = target.table()
    target.database.execute(f'ALTER TABLE "{table}" RENAME TO "hidden"')
    target.database.execute(f'CREATE VIEW "{table}" AS SELECT * FROM "hidden"')
    return f"{table} is a view"


def without_rowid(target: Target) -> str:
    table = target.table()
    target.loosen(table)
    columns = ", ".join(f'"{column}"' for column in target.columns(table))
    target.database.execute(
        f'CREATE TABLE "other" (k INTEGER PRIMARY KEY, {columns}) WITHOUT ROWID'
    )
    target.database.execute(f'INSERT INTO "other" SELECT rowid, * FROM "{table}"')
    target.database.execute(f'DROP TABLE "{table}"')
    target.database.execute(f'ALTER TABLE "other" RENAME TO "{table}"')
    return f"{table} has no rowid"


def generated_column(target: Target) -> str:
    table = target.timed()
    target.loosen(table)
    target.database.execute(f'ALTER TABLE "{table}" RENAME COLUMN "end" TO "kept"')
    target.database.execute(f'ALTER TABLE "{table}" ADD COLUMN "end" AS ("kept" + 1)')
    return f"{table}.end is worked out"


def costly_rule(target: Target) -> str:
    rule = target.chosen.choice(
        ("length(hex(zeroblob(400000000))) > 0", "x LIKE '%a%a%a%a%a%a%a%a%a%a%a%b'")
    )
    target.database.execute(f"CREATE TABLE costly (x CHECK ({rule}))")
    target.database.execute("PRAGMA ignore_check_constraints = on")
    target.database.execute("INSERT INTO costly VALUES (?)", ("a" * 500,))
    return f"a rule that costs: {rule}"


def ids_doubled(target: Target) -> str:
    table = target.table()
    target.loosen(table)
    rows = target.rows(table)
    target.database.executemany(
        f'INSERT INTO "{table}" SELECT * FROM "{table}" WHERE rowid = ?', [(row,) for row in rows]
    )
    return f"{len(rows)} rows of {table} twice"


def names_share_an_id(target: Target) -> str:
    target.loosen("StringIds")
    first = target.rows("StringIds")[0]
    target.database.execute(
        "INSERT INTO StringIds SELECT id, 'another' FROM StringIds WHERE rowid = ?", (first,)
    )
    return "one id with two texts"


def times_odd(target: Target) -> str:
    table = target.timed()
    column = target.chosen.choice(("start", "end"))
    target.loosen(table)
    value = target.chosen.choice(INTEGERS)
    count = target.set(table, column, [value])
    return f"{count} {column}s of {table} at {value}"


def both_times_odd(target: Target) -> str:
    table = target.timed()
    value = target.chosen.choice(INTEGERS)
    rows = target.rows(table)
    last = min(value + target.chosen.choice((0, 5, 10**9)), 2**63 - 1)
    target.database.executemany(
        f'UPDATE "{table}" SET start = ?, "end" = ? WHERE rowid = ?',
        [(value, last, row) for row in rows],
    )
    return f"{len(rows)} rows of {table} from {value} to {last}"


def times_moved(target: Target) -> str:
    table = target.timed()
    shift = target.chosen.choice((-(10**9), 10**9, 2**61, -(2**61)))
    target.database.execute(
        f'UPDATE "{table}" SET start = start + {shift}, "end" = "end" + {shift}'
    )
    return f"all of {table} later by {shift}"


def ids_odd(target: Target) -> str:
    table = target.table()
    target.loosen(table)
    known = [name for name in target.columns(table) if name.lower().endswith(("id", "pid", "tid"))]
    column = target.chosen.choice(known or target.columns(table))
    count = target.set(table, column, [target.chosen.choice(INTEGERS) for _ in range(3)])
    return f"{count} odd {table}.{column}"


def names_hostile(target: Target) -> str:
    target.loosen("StringIds")
    name = target.chosen.choice(NAMES)
    raw = name if isinstance(name, bytes) else name.encode("utf-8", "surrogatepass")
    rows = target.rows("StringIds")[:40]
    if target.chosen.random() < 0.7:
        query = f'SELECT DISTINCT demangledName FROM "{_KERNELS}" ORDER BY 1'
        used = [row[0] for row in target.database.execute(query)]
        rows = target.chosen.sample(used, min(len(used), 3))
    kind = target.chosen.choice(("TEXT", "TEXT", "TEXT", "BLOB"))
    ends = target.chosen.choice(("", "", " || value"))
    key = target.chosen.choice(("id", "rowid"))
    target.database.executemany(
        f"UPDATE StringIds SET value = CAST(? AS {kind}){ends} WHERE {key} = ?",
        [(raw, row) for row in rows],
    )
    return f"{len(rows)} names {raw[:24]!r}… ({len(raw)} bytes, {kind}{ends})"


def texts_hostile(target: Target) -> str:
    names = [
        name for name in target.tables() if name.startswith(("META", "TARGET", "PROC", "DIAG"))
    ]
    table = target.chosen.choice(names or target.tables())
    target.loosen(table)
    column = target.chosen.choice(target.columns(table))
    name = target.chosen.choice(NAMES)
    count = target.set(table, column, [name if isinstance(name, str) else bytes(name)])
    return f"{count} hostile {table}.{column}"


def ranges_hostile(target: Target) -> str:
    if "NVTX_EVENTS" not in target.tables():
        return table_emptied(target)
    target.loosen("NVTX_EVENTS")
    column = target.chosen.choice(("text", "textId", "eventType", "jsonText", "globalTid", "end"))
    if column not in target.columns("NVTX_EVENTS"):
        target.database.execute(f'ALTER TABLE NVTX_EVENTS ADD COLUMN "{column}"')
    deep = "[" * 100_000
    step = "execute_context_1(-5)_generation_99999999999999999999(1)"
    values: list[Any] = [
        step,
        deep,
        "model.layers.99999999999999999999",
        None,
        -1,
        59,
        "A" * MEBIBYTE,
    ]
    value = target.chosen.choice(values)
    return f"{target.set('NVTX_EVENTS', column, [value])} NVTX {column} {str(value)[:30]}"


def rows_lost(target: Target) -> str:
    table = target.timed()
    rows = target.rows(table)
    target.database.executemany(f'DELETE FROM "{table}" WHERE rowid = ?', [(r,) for r in rows])
    return f"{len(rows)} rows of {table} lost"


CHANGES: tuple[Callable[[Target], str], ...] = (
    types_swapped, types_swapped, table_dropped, table_emptied, column_dropped, column_dropped,
    renamed, replaced_by_view, without_rowid, generated_column, costly_rule, ids_doubled,
    names_share_an_id, times_odd, times_odd, both_times_odd, times_moved, ids_odd, ids_odd,
    names_hostile, names_hostile, names_hostile, texts_hostile, ranges_hostile, rows_lost,
)  # fmt: skip


def change(path: Path, chosen: random.Random) -> str:
    """Change a trace in place in one way, and return what was done in words."""
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode = off")
        database.execute("PRAGMA synchronous = off")
        try:
            done = chosen.choice(CHANGES)(Target(database, chosen))
        except (sqlite3.Error, OverflowError, IndexError, ValueError) as error:
            # What SQLite refuses to write is no mutant of this kind: the seed is asked as it is.
            done = f"unchanged ({type(error).__name__})"
        database.commit()
    return done
