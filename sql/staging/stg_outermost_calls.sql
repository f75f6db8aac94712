create table staging.stg_outermost_calls as
-- Sorted once; windows without an order of their own then take the rows as they come, one pass over
-- all threads (docs/performance.md: nothing but projections and filters may stand between). The
-- numbers of threads are so far apart that none reaches into the next.
with threads as (
    select
        globalTid as global_tid,
        row_number() over (order by globalTid)::hugeint * 18446744073709551616 as zero
    from nsys.CUPTI_ACTIVITY_KIND_RUNTIME
    group by globalTid
),

in_order as (
    select
        threads.zero,
        calls.globalTid as global_tid,
        calls.start as start_ns,
        calls."end" as end_ns,
        calls.nameId as name_id,
        -- Pageable memory is staged: the call returns when the copy is done, whatever its name.
        coalesce(names.kind = 'blocking' or calls."end" >= copies.end_ns, false) as is_blocking
    from nsys.CUPTI_ACTIVITY_KIND_RUNTIME as calls
    inner join threads on calls.globalTid is not distinct from threads.global_tid
    left join staging.stg_call_names as names on calls.nameId = names.name_id
    left join staging.stg_pageable_copies as copies
        on
            calls.correlationId = copies.correlation_id
            and (calls.globalTid >> 24) << 24 = copies.global_pid
    order by threads.zero asc, calls.start asc, calls."end" desc
),

reached as (
    select
        *,
        max(zero + end_ns) over so_far as reach
    from in_order
    -- sqlfluff knows no window without an order.
    window so_far as (rows between unbounded preceding and current row)  -- noqa: PRS
),

judged as (
    select
        *,
        -- Out of reach where the call before is another thread's.
        try_cast(lag(reach) over () - zero as bigint) as covered_ns,
        lag(zero + start_ns) over () > zero + start_ns as is_disordered
    from reached
)

-- A call of the runtime makes calls of the driver: what happens inside a call belongs to it.
select
    global_tid,
    start_ns,
    end_ns,
    name_id,
    covered_ns as free_ns,
    is_blocking
from judged
where
    case
        when is_disordered then error('rows came out of order')
        else covered_ns is null or covered_ns <= start_ns
    end;

comment on table staging.stg_outermost_calls is
'CUDA API calls that no other contains, with the end of the call before (free_ns, NULL for the first). Grain: one outermost call. Key: (global_tid, start_ns). Invariant: calls of a thread do not overlap.';
