"""Running sums over sorted rows against windows that sort for themselves, however DuckDB runs them.

Enough rows that several threads share the sort, and limits so low that it goes to disk.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from nsysmoe.trace.catalogue import catalogue
from nsysmoe.trace.store import make_one

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# More than two row groups of 122,880, which is what threads share.
ROWS = 150_000
DEVICES = 5
SETTINGS = {
    "one_thread": {"threads": 1, "memory_limit": "1GB"},
    "threads": {"threads": 4, "memory_limit": "1GB"},
    "any_insertion_order": {
        "threads": 4,
        "memory_limit": "1GB",
        "preserve_insertion_order": "false",
    },
    "little_memory": {"threads": 2, "memory_limit": "64MB"},
}
# What is made, in this order; what else they read are the tables below.
MADE = (
    "staging.stg_numbered_steps",
    "staging.stg_calls",
    "staging.stg_outermost_calls",
    "staging.stg_streams",
    "staging.stg_call_parts",
    "staging.stg_work",
    "staging.stg_measured_work",
    "main.gpu_work",
    "staging.stg_collective_progress",
    "intervals.placed_steps",
    "staging.stg_idle_gaps",
    "main.idle_gaps",
    "intervals.segments",
    "staging.stg_moe_launches",
    "staging.stg_moe_products",
    "staging.stg_collective_arrivals",
)
SORTED = (
    "staging.stg_calls",
    "staging.stg_measured_work",
    "staging.stg_idle_gaps",
    "intervals.segments",
    "staging.stg_moe_launches",
    "staging.stg_moe_products",
    "staging.stg_collective_arrivals",
)

OUTERMOST = """
    with judged as (
        select *, max("end") over (
            partition by globalTid order by start asc, "end" desc
            rows between unbounded preceding and 1 preceding
        ) as free_ns
        from nsys.CUPTI_ACTIVITY_KIND_RUNTIME
    )
    select globalTid, start, "end", nameId, free_ns,
        nameId = 1 or (correlationId % 7 = 0 and correlationId % 3 < 2)
    from judged where free_ns is null or free_ns <= start
"""
# The step that began last on the thread, where it is not over.
CALLED = """
    select globalTid, start, "end", correlationId, case when start < steps.end_ns then step end
    from nsys.CUPTI_ACTIVITY_KIND_RUNTIME
    asof left join main.steps on globalTid = steps.global_tid and start >= steps.start_ns
"""
CALLED_HERE = """
    select calls.global_tid, calls.start_ns, calls.end_ns, correlation_id, step
    from staging.stg_calls as calls
    left join staging.stg_numbered_steps as steps on step_place = steps.place
"""
WORK = """
    select kernel_id, global_pid, device_id, stream_id, start_ns, end_ns,
        row_number() over stream as place,
        max(end_ns) over (stream rows between unbounded preceding and 1 preceding) as previous_ns
    from (
        select kernel_id, global_pid, device_id, stream_id, start_ns, end_ns from main.kernels
        union all
        select null, global_pid, device_id, stream_id, start_ns, end_ns from staging.stg_copies
    )
    window stream as (partition by global_pid, device_id, stream_id order by start_ns, end_ns)
"""
# Up to each communication kernel, less up to the one before it on the stream.
PROGRESS = """
    with running as (
        select *,
            sum(case when class = 'moe_gemm' then busy_ns else 0 end) over stream as moe,
            sum(case when class in ('copy', 'other') then busy_ns else 0 end) over stream as other,
            sum(late_ns) over stream as late,
            sum(gap_ns - late_ns) over stream as gap
        from main.gpu_work
        window stream as (
            partition by global_pid, device_id, stream_id order by place
            rows between unbounded preceding and current row
        )
    )
    select kernel_id, {} from running where class = 'collective'
    window met as (partition by global_pid, device_id, stream_id order by place)
"""
PROGRESSED = """
    select kernel_id, {}
    from staging.stg_collective_progress
    inner join (select kernel_id, global_pid, device_id, stream_id, place from main.gpu_work)
        using (kernel_id, stream_id)
    window found as (partition by global_pid, device_id, stream_id order by place)
"""
# The time that a thread had spent in calls at an instant: in all before it, and in the one around.
IDLE = """
    with calls as (
        select global_tid, start_ns, end_ns, is_blocking,
            sums.dur - dur as before, sums.blocked - blocked as blocked_before
        from (
            select *, end_ns - start_ns as dur,
                case when is_blocking then end_ns - start_ns else 0 end as blocked,
                {'dur': sum(end_ns - start_ns) over thread,
                 'blocked': sum(case when is_blocking then end_ns - start_ns else 0 end)
                    over thread} as sums
            from staging.stg_outermost_calls
            window thread as (partition by global_tid order by start_ns
                rows between unbounded preceding and current row)
        )
    ),
    free as (
        select *, max(end_ns) over (
            partition by global_pid, device_id order by start_ns, end_ns
            rows between unbounded preceding and 1 preceding
        ) as free_ns
        from main.gpu_work
    ),
    spans as (
        select global_pid, device_id, min(start_ns) as first_ns, max(end_ns) as last_ns
        from main.device_steps group by all
    ),
    gaps as (
        select free.*, greatest(least(call_end_ns, start_ns), free_ns) as launched_ns
        from free inner join spans using (global_pid, device_id)
        where start_ns > free_ns and free_ns >= first_ns and start_ns <= last_ns
    )
    select gaps.global_pid, gaps.device_id, step, free_ns, gaps.start_ns,
        coalesce(last.blocked_before - coalesce(first.blocked_before, 0)
            + case when last.is_blocking
                then least(launched_ns, last.end_ns) - last.start_ns else 0 end
            - coalesce(case when first.is_blocking
                then least(free_ns, first.end_ns) - first.start_ns else 0 end, 0), 0),
        coalesce(last.before + least(launched_ns, last.end_ns) - last.start_ns
            - coalesce(first.before + least(free_ns, first.end_ns) - first.start_ns, 0), 0),
        gaps.start_ns - launched_ns
    from gaps
    asof left join calls as first
        on gaps.global_tid = first.global_tid and gaps.free_ns >= first.start_ns
    asof left join calls as last
        on gaps.global_tid = last.global_tid and gaps.launched_ns >= last.start_ns
    asof join main.device_steps as steps
        on gaps.global_pid = steps.global_pid and gaps.device_id = steps.device_id
        and free_ns >= steps.start_ns
"""
# Kinds in columns of their own, and steps by an ASOF join.
SEGMENTS = """
    with spans as (
        select global_pid, device_id, min(start_ns) as first_ns, max(end_ns) as last_ns
        from main.device_steps group by all
    ),
    edges as (
        select global_pid, device_id, start_ns as at_ns, place, 1 as sign from intervals.activities
        union all
        select global_pid, device_id, least(end_ns, last_ns), place, -1
        from intervals.activities inner join spans using (global_pid, device_id)
        union all
        select global_pid, device_id, start_ns, -1, 0 from main.device_steps
        union all
        select global_pid, device_id, last_ns, -1, 0 from spans
    ),
    running as (
        select global_pid, device_id, at_ns,
            lead(at_ns) over device as end_ns,
            sum(sign) filter (where place = 0) over device as moe,
            sum(sign) filter (where place = 3) over device as transfer,
            sum(sign) filter (where place = 5) over device as copy
        from edges
        window device as (partition by global_pid, device_id order by at_ns
            rows between unbounded preceding and current row)
    )
    select place, at_ns, running.end_ns,
        coalesce(moe, 0), coalesce(transfer, 0), coalesce(copy, 0)
    from running
    asof join intervals.placed_steps as steps
        on running.global_pid = steps.global_pid and running.device_id = steps.device_id
        and running.at_ns >= steps.start_ns
    where at_ns < running.end_ns
"""
# A product after another of the same device is the second of its layer.
PRODUCTS = """
    with followed as (
        select *,
            coalesce(lag(is_product) over device, not lead(is_product) over device, false)
                as follows,
            bool_or(not is_product) over (partition by global_pid, device_id) as has_routing
        from staging.stg_moe_around
        window device as (partition by global_pid, device_id order by start_ns)
    ),
    numbered as (
        select *, row_number() over (partition by global_pid, device_id order by start_ns) - 1 as n
        from followed where is_product
    ),
    told as (
        select *, case when has_routing then not follows else n % 2 = 0 end as is_first
        from numbered
    )
    select kernel_id, dense_rank() over (order by global_pid) - 1, n, blocks,
        case when is_first then 'w13' else 'w2' end,
        sum(is_first::int) over (partition by global_pid, device_id order by start_ns) - 1
    from told
"""
ARRIVALS = """
    select kernel_id, name_id, dense_rank() over (order by global_pid) - 1,
        dense_rank() over (order by name_id, nccl_communicator nulls first),
        count(*) over (partition by name_id, nccl_communicator, global_pid, device_id),
        row_number() over (
            partition by name_id, nccl_communicator, global_pid, device_id order by start_ns
        ) - 1
    from staging.stg_collective_events
"""
PARTS = ("moe", "other", "late", "gap")
EXPECTED = {
    "outermost calls": (
        OUTERMOST,
        "select global_tid, start_ns, end_ns, name_id, free_ns, is_blocking "
        "from staging.stg_outermost_calls",
    ),
    "steps of calls": (CALLED, CALLED_HERE),
    "work on streams": (
        WORK,
        "select kernel_id, global_pid, device_id, stream_id, start_ns, end_ns, place, "
        "previous_end_ns from main.gpu_work",
    ),
    "progress between collectives": (
        PROGRESS.format(", ".join(f"{part} - lag({part}) over met" for part in PARTS)),
        PROGRESSED.format(", ".join(f"{part}_ns - lag({part}_ns) over found" for part in PARTS)),
    ),
    "idle gaps": (
        IDLE,
        "select global_pid, device_id, step, start_ns, end_ns, blocked_ns, "
        "blocked_ns + calling_ns, launched_ns from main.idle_gaps",
    ),
    "stretches of GPUs": (
        SEGMENTS,
        "select place, start_ns, end_ns, open & 1023, (open >> 30) & 1023, (open >> 50) & 1023 "
        "from intervals.segments",
    ),
    "products of layers": (
        PRODUCTS,
        "select kernel_id, rank, ordinal, blocks, gemm, layer_ordinal "
        "from staging.stg_moe_products",
    ),
    "series of collectives": (
        ARRIVALS,
        "select kernel_id, name_id, rank, series, launches, ordinal "
        "from staging.stg_collective_arrivals",
    ),
}


def tables() -> dict[str, pa.Table]:
    """Return what the scripts read, rows in random order; no two of one kind begin at once."""
    draw = np.random.default_rng(5)
    starts = draw.permutation(ROWS) * 1000
    device = draw.integers(DEVICES, size=ROWS)
    lasts = draw.integers(1, 30_000, size=ROWS)
    ids = np.arange(ROWS)
    place = np.array([0, 3, 5])[ids % 3]
    kernels = pa.table({
        "kernel_id": ids, "global_pid": device + 100, "device_id": device,
        "context_id": np.ones(ROWS, np.int64), "stream_id": ids % 2, "correlation_id": ids,
        "name_id": ids % 3, "string_id": ids % 3, "start_ns": starts, "end_ns": starts + lasts,
    })  # fmt: skip
    copied = draw.permutation(ROWS)[: ROWS // 10]
    copies = kernels.select(
        ["global_pid", "device_id", "context_id", "stream_id", "correlation_id", "start_ns",
         "end_ns"]
    ).take(copied)  # fmt: skip
    starts_of_copies = copies["start_ns"].to_numpy() + 500
    copies = copies.set_column(5, "start_ns", pa.array(starts_of_copies))
    copies = copies.set_column(
        6, "end_ns", pa.array(starts_of_copies + draw.integers(1, 9_000, size=copied.size))
    )
    called = starts - draw.integers(100, 90_000, size=ROWS)
    calls = pa.table({
        "globalTid": device + 100, "start": called,
        "end": called + draw.integers(1, 40_000, size=ROWS), "nameId": ids % 4,
        "correlationId": ids,
    })  # fmt: skip
    launched = pa.table({
        "global_pid": device + 100, "correlation_id": ids, "global_tid": device + 100,
        "start_ns": calls["start"], "end_ns": calls["end"],
        "step_place": np.ones(ROWS, np.int32),
    })  # fmt: skip
    activities = kernels.select(["global_pid", "device_id", "start_ns", "end_ns"])
    timed = kernels.append_column("dur_ns", pa.array(lasts)).append_column(
        "process_id", kernels["global_pid"]
    )
    # The kernels of the first device have no routing between them.
    around = timed.append_column("is_product", pa.array((ids % 3 != 1) | (device == 0)))
    around = around.append_column("blocks", pa.array(ids % 50))
    events = timed.append_column("is_replayed", pa.array(np.zeros(ROWS, bool)))
    events = events.append_column("nccl_communicator", pa.array(ids % 4, mask=ids % 3 == 0))
    return {
        "main.kernels": kernels,
        "staging.stg_kernels": kernels,
        "staging.stg_copies": copies,
        "nsys.CUPTI_ACTIVITY_KIND_RUNTIME": calls,
        "staging.stg_api_calls": launched,
        "main.moe_kernels": timed.filter(around["is_product"]),
        "staging.stg_moe_around": around,
        "staging.stg_collective_events": events,
        "intervals.activities": activities.append_column("place", pa.array(place)),
    }


@pytest.fixture(scope="module")
def inputs() -> dict[str, pa.Table]:
    return tables()


@pytest.fixture(params=list(SETTINGS.values()), ids=list(SETTINGS))
def connection(
    request: pytest.FixtureRequest, inputs: dict[str, pa.Table], tmp_path: Path
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Return DuckDB with the tables of ``inputs`` and what the other scripts would have made."""
    place = str(tmp_path / "tables.duckdb")
    config: dict[str, Any] = {"asof_loop_join_threshold": 0, **request.param}
    with duckdb.connect(place, config=config) as opened:
        fill(opened, inputs)
        yield opened


def fill(opened: duckdb.DuckDBPyConnection, inputs: dict[str, pa.Table]) -> None:
    for schema in ("nsys", "nsysmoe", "staging", "intervals"):
        opened.execute(f"create schema {schema}")
    for name, rows in inputs.items():
        opened.register("incoming", rows)
        opened.execute(f"create table {name} as select * from incoming")
        opened.unregister("incoming")
    opened.execute("""
        create table staging.stg_call_names as
        select n as name_id, case when n = 1 then 'blocking' else 'other' end as kind
        from range(4) as ids (n)
    """)
    opened.execute("""
        create table staging.stg_name_ids as
        select n as string_id, n::integer as name_id from range(3) as ids (n)
    """)
    opened.execute("""
        create table nsysmoe.kernel_functions as
        select n as name_id, ['moe_gemm', 'collective', 'other'][n + 1] as class
        from range(3) as ids (n)
    """)
    # A third of them end after their calls.
    opened.execute("""
        create table staging.stg_pageable_copies as
        select 0 as global_pid, correlationId as correlation_id,
            "end" - 1 + correlationId % 3 as end_ns
        from nsys.CUPTI_ACTIVITY_KIND_RUNTIME
        where correlationId % 7 = 0
    """)
    # A hundred steps a thread with pauses between; some begin at the instant of a call.
    opened.execute("""
        create table main.steps as
        select globalTid as global_tid, row_number() over (partition by globalTid) as step,
            'decode' as phase, start - number // 600 % 10 as start_ns, start + 70000 as end_ns
        from (
            select *, row_number() over (partition by globalTid order by start) as number
            from nsys.CUPTI_ACTIVITY_KIND_RUNTIME
        )
        where number % 300 = 1
    """)
    # A hundred steps a device, from its first kernel on.
    opened.execute("""
        create table main.device_steps as
        select global_pid, global_pid as process_id, device_id,
            row_number() over (partition by device_id order by start_ns) as step,
            'decode' as phase, start_ns,
            coalesce(lead(start_ns) over (partition by device_id order by start_ns), last_ns)
                as end_ns
        from (
            select *, row_number() over (partition by device_id order by start_ns) as number,
                max(end_ns) over (partition by device_id) as last_ns
            from main.kernels
        )
        where number % 600 = 1
    """)


def test_however_duckdb_runs_them(connection: duckdb.DuckDBPyConnection) -> None:
    for name in MADE:
        # Views too are worked out under the limits, and kept.
        script = catalogue().scripts[name]
        make_one(connection, replace(script, text=script.text.replace("view", "table")))
    connection.execute("set memory_limit = '1GB'")
    for what, queries in EXPECTED.items():
        for name, query in zip(("expected", "found"), queries, strict=True):
            connection.execute(f"create or replace temp table {name} as {query}")
        # Fewer rows or other ones: what is there as often as it should be, and as many in all.
        more = connection.execute("from expected except all from found").fetchmany(3)
        rows = connection.execute(
            "select (select count(*) from expected), (select count(*) from found)"
        ).fetchall()
        assert more == [], what
        assert rows[0][0] == rows[0][1] > 1000, what


@pytest.mark.parametrize("name", SORTED)
def test_rows_that_come_in_another_order_are_refused(
    inputs: dict[str, pa.Table], name: str
) -> None:
    """Whatever a later DuckDB makes of a sorted subquery, no number comes of it."""
    order = re.compile(r"^    order by [^)]*?$(?=\n\),)", re.MULTILINE)
    with duckdb.connect() as opened:
        fill(opened, {key: rows.slice(0, 5_000) for key, rows in inputs.items()})
        for made in MADE[: MADE.index(name)]:
            make_one(opened, catalogue().scripts[made])
        text = catalogue().scripts[name].text
        sorts = len(order.findall(text))
        assert sorts > 0
        for number in range(sorts):
            turned = iter(range(sorts))
            shuffled = order.sub(
                lambda found: "    order by random()" if next(turned) == number else found[0],  # noqa: B023
                text,
            )
            with pytest.raises(duckdb.Error, match="rows came out of order"):
                opened.execute(shuffled.replace("view", "table"))


def test_progress_of_work_that_comes_in_another_order_is_refused(
    inputs: dict[str, pa.Table],
) -> None:
    name = "staging.stg_measured_work"
    with duckdb.connect() as opened:
        fill(opened, {key: rows.slice(0, 5_000) for key, rows in inputs.items()})
        for made in MADE[: MADE.index(name) + 1]:
            make_one(opened, catalogue().scripts[made])
        opened.execute(f"create table turned as from {name} order by random()")
        opened.execute(f"create or replace view {name} as from turned")
        with pytest.raises(duckdb.Error, match="rows came out of order"):
            make_one(opened, catalogue().scripts["staging.stg_collective_progress"])
