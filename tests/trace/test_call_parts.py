"""Calls joined to what they launched, range by range, against one join over all of them."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import TYPE_CHECKING

import duckdb
import pytest

from nsysmoe.trace.catalogue import catalogue
from nsysmoe.trace.store import make_one

if TYPE_CHECKING:
    from collections.abc import Iterable

LEAST, MOST = -(2**63), 2**63 - 1
CALL = "global_tid bigint, correlation_id bigint, start_ns bigint, end_ns bigint, step_place int"
WORK = (
    "kernel_id bigint, string_id bigint, global_pid bigint, device_id bigint, context_id bigint, "
    "stream_id bigint, correlation_id bigint, start_ns bigint, end_ns bigint"
)
COPIES = WORK.removeprefix("kernel_id bigint, string_id bigint, ")
PROCESSES = (1 << 24, 2 << 24)
# What both make of the same rows: the outer call of those that share an id.
GROUPED = """
    select work.start_ns as begun_ns, calls.*
    from (
        select global_pid, correlation_id, start_ns from staging.stg_kernels
        union all
        select global_pid, correlation_id, start_ns from staging.stg_copies
    ) as work
    left join (
        select global_tid - (global_tid & 16777215) as global_pid, correlation_id,
            arg_min(global_tid, start_ns) as global_tid, min(start_ns) as start_ns,
            max(end_ns) as end_ns,
            nullif(arg_min(coalesce(step_place, 0), start_ns), 0) as step_place
        from staging.stg_calls where correlation_id is not null group by all
    ) as calls
        on work.global_pid = calls.global_pid and work.correlation_id = calls.correlation_id
"""


@pytest.fixture
def connection() -> duckdb.DuckDBPyConnection:
    opened = duckdb.connect()
    opened.execute("create schema staging")
    opened.execute(f"create table staging.stg_calls ({CALL})")
    opened.execute(f"create table staging.stg_kernels ({WORK})")
    opened.execute("create table staging.stg_name_ids as select 7 as string_id, 1 as name_id")
    opened.execute(f"create table staging.stg_copies ({COPIES})")
    opened.execute(
        """
        create table staging.stg_streams as
        select stream, global_pid, 0 as device_id, 1 as context_id, null::bigint as stream_id
        from (values (1, ?), (2, ?), (3, null)) as streams (stream, global_pid)
    """,
        PROCESSES,
    )
    return opened


def make(connection: duckdb.DuckDBPyConnection, *names: str) -> None:
    for name in names:
        make_one(connection, catalogue().scripts[f"staging.{name}"])


def some_ids(chance: random.Random) -> list[int | None]:
    near = [chance.randrange(-80, 200) for _ in range(150)]
    return [*near, LEAST, LEAST, MOST, MOST - 1, None, None]


def insert(
    connection: duckdb.DuckDBPyConnection, table: str, rows: Iterable[tuple[int | None, ...]]
) -> None:
    """Insert rows of integers at once: one by one, each would be planned anew."""
    listed = ", ".join(str(row).replace("None", "null") for row in rows)
    connection.execute(f"insert into {table} values {listed}")


def fill(connection: duckdb.DuckDBPyConnection, seed: int) -> None:
    chance = random.Random(seed)
    starts = chance.sample(range(10_000), 2 * len(some_ids(chance)))
    calls = [
        (process + chance.randrange(3), number, start, start + chance.randrange(90), step)
        for process in PROCESSES
        for number in some_ids(chance)
        for start in [starts.pop()]
        for step in [chance.choice([None, 1, 2])]
    ]
    insert(connection, "staging.stg_calls", calls)
    connection.execute("insert into staging.stg_calls values (null, 7, 1, 2, null)")
    # Every fifth is a copy; no two begin at once.
    work = [
        (place, (chance.choice([*PROCESSES, None]), 0, 1, None, number, place, place + 1))
        for place, number in enumerate([*some_ids(chance), *some_ids(chance)])
    ]
    kernels = [(place, 7, *row) for place, row in work if place % 5]
    insert(connection, "staging.stg_kernels", kernels)
    insert(connection, "staging.stg_copies", [row for place, row in work if not place % 5])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "ranges",
    [
        [(LEAST, MOST), (None, None)],
        [(LEAST, -33), (-32, 9), (10, 63), (64, MOST), (None, None)],
    ],
    ids=["one", "several"],
)
def test_ranges_of_ids_join_as_all_of_them_at_once(
    connection: duckdb.DuckDBPyConnection, ranges: list[tuple[int | None, int | None]], seed: int
) -> None:
    fill(connection, seed)
    connection.execute("create table staging.stg_call_parts (low bigint, high bigint)")
    connection.executemany("insert into staging.stg_call_parts values (?, ?)", ranges)
    make(connection, "stg_crowded_calls", "stg_api_calls", "stg_work")
    columns = "global_tid, {0}start_ns, {0}end_ns, step_place"
    expected = connection.execute(
        f"select begun_ns, {columns.format('')} from ({GROUPED}) order by all"
    )
    rows = expected.fetchall()
    found = connection.execute(
        f"select start_ns, {columns.format('call_')} from staging.stg_work order by all"
    )
    assert found.fetchall() == rows
    assert sum(row[1] is not None for row in rows) > 50


def parts(connection: duckdb.DuckDBPyConnection) -> list[tuple[int, int]]:
    make(connection, "stg_call_parts")
    rows = connection.execute("from staging.stg_call_parts order by low nulls first").fetchall()
    assert rows[0] == (None, None)
    return rows[1:]


@pytest.mark.parametrize(
    "ids", ["i", "i * 1000", "-i", "(i - 1) * 3074457345618", "7", "null"], ids=str
)
def test_every_id_is_in_one_range(connection: duckdb.DuckDBPyConnection, ids: str) -> None:
    connection.execute(
        f"insert into staging.stg_calls select 1, {ids}, i, i, null from range(2500000) as t(i)"
    )
    found = parts(connection)
    assert (found[0][0], found[-1][1]) == (LEAST, MOST)
    assert all(high + 1 == low for (_, high), (low, _) in pairwise(found))
    counted = [
        connection.execute(
            "select count(*) from staging.stg_calls where correlation_id between ? and ?", bounds
        ).fetchall()[0][0]
        for bounds in found
    ]
    if ids in {"7", "null"}:
        assert len(found) == 1
    else:
        assert max(counted) < 1_200_000


def test_without_calls_there_is_one_range(connection: duckdb.DuckDBPyConnection) -> None:
    assert parts(connection) == [(LEAST, MOST)]
