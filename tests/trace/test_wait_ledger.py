"""Why ranks waited, against windows and joins that hold every arrival and sort for themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from nsysmoe.trace import open_trace

FIXTURES = Path(__file__).parents[2] / "fixtures"
# What each stream did since its last matched collective, and of each meeting the last rank's.
ORACLE = """
    with arrivals as (
        select
            met.*,
            lag(met.end_ns) over by_stream as previous_end_ns,
            running.moe_ns - lag(running.moe_ns) over by_stream as moe_ns,
            running.other_ns - lag(running.other_ns) over by_stream as other_ns,
            running.late_ns - lag(running.late_ns) over by_stream as late_ns,
            running.gap_ns - lag(running.gap_ns) over by_stream as gap_ns
        from main.matched_collectives as met
        inner join staging.stg_collective_progress as running using (kernel_id)
        where met.is_matched
        window by_stream as (
            partition by met.global_pid, met.device_id, running.context_id, running.stream_id
            order by met.start_ns
        )
    ),
    last_ones as (
        select name_id, communicator, ordinal,
            first(kernel_id order by global_pid >> 48, device_id, global_pid) as kernel_id
        from arrivals where is_last group by all
    )
    select early.kernel_id, late.kernel_id, early.global_pid, late.global_pid, early.device_id,
        late.device_id, early.function, early.wait_ns, late.moe_ns - early.moe_ns,
        late.other_ns - early.other_ns, late.late_ns - early.late_ns,
        late.gap_ns - early.gap_ns, late.previous_end_ns - early.previous_end_ns
    from arrivals as early
    inner join last_ones using (name_id, communicator, ordinal)
    inner join arrivals as late on last_ones.kernel_id = late.kernel_id
    where early.kernel_id != late.kernel_id
        and early.previous_end_ns is not null and late.previous_end_ns is not null
    order by 1
"""
COLUMNS = (
    "kernel_id, late_kernel_id, global_pid, late_global_pid, device_id, late_device_id, function, "
    "wait_ns, moe_ns, other_kernels_ns, host_ns, other_gap_ns, previous_end_ns"
)


# Kept answers would do without the tables that the oracle stands on.
@pytest.mark.usefixtures("cache_folder")
@pytest.mark.parametrize("name", ["dp2/eplb_on", "graphs/eplb_on", "groups/four_gpus"])
def test_waits_are_those_of_windows_that_sort_for_themselves(name: str) -> None:
    with open_trace(FIXTURES / f"{name}.sqlite") as trace:
        assert trace.frame("wait_ledger").height
        connection = trace._store.connection
        expected = connection.execute(ORACLE).fetchall()
        rows = connection.execute(f"select {COLUMNS} from main.wait_ledger order by 1").fetchall()
    assert rows == expected
