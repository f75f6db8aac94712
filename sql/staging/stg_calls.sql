create table staging.stg_calls as
with threads as (
    select
        globalTid as global_tid,
        (row_number() over (order by globalTid))::integer as thread
    from nsys.CUPTI_ACTIVITY_KIND_RUNTIME
    group by globalTid
),

-- Calls, and steps before what is called at the same instant.
events as (
    select
        calls.globalTid as global_tid,
        calls.start as start_ns,
        calls."end" as end_ns,
        calls.correlationId as correlation_id,
        calls.nameId as name_id,
        -- Pageable memory is staged: the call returns when the copy is done, whatever its name.
        coalesce(calls."end" >= copies.end_ns, false) as is_staged,
        null as step_place
    from nsys.CUPTI_ACTIVITY_KIND_RUNTIME as calls
    left join staging.stg_pageable_copies as copies
        on
            calls.correlationId = copies.correlation_id
            and calls.globalTid - (calls.globalTid & 16777215) = copies.global_pid
    union all
    select
        global_tid,
        start_ns,
        9223372036854775807 as end_ns,
        null as correlation_id,
        null as name_id,
        null as is_staged,
        place as step_place
    from staging.stg_numbered_steps
),

-- Sorted once; windows without an order of their own then take the rows as they come, one pass over
-- all threads (docs/performance.md: nothing but projections and filters may stand between).
in_order as (
    -- The rest goes to disk with the keys where memory is short: nothing that follows from others.
    select
        threads.thread,
        events.start_ns,
        events.end_ns,
        events.correlation_id,
        events.name_id,
        events.is_staged,
        events.step_place
    from events
    inner join threads on events.global_tid is not distinct from threads.global_tid
    -- Keys of at most 24 bytes are sorted three times as fast as longer ones.
    order by threads.thread asc, events.start_ns asc, events.end_ns desc
),

-- The numbers of threads are so far apart that no time of one reaches into the next.
apart as (
    select
        *,
        thread::hugeint * 18446744073709551616 as zero
    from in_order
),

reached as (
    select
        *,
        max(case when step_place is null then zero + end_ns end) over so_far as reach,
        max(step_place) over so_far as begun
    from apart
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
),

called as (
    select
        thread,
        correlation_id,
        start_ns,
        end_ns,
        name_id,
        is_staged,
        begun,
        covered_ns as free_ns,
        coalesce(covered_ns <= start_ns, true) as is_outermost
    from judged
    where case when is_disordered then error('rows came out of order') else step_place is null end
),

counted as (
    select
        *,
        sum(is_outermost::integer) over so_far as place
    from called
    -- sqlfluff knows no window without an order.
    window so_far as (rows between unbounded preceding and current row)  -- noqa: PRS
)

-- The step that began last, unless it is another thread's or over.
select
    threads.global_tid,
    counted.correlation_id,
    counted.start_ns,
    counted.end_ns,
    counted.name_id,
    -- A column of its own for what few calls are takes as long to keep as any other.
    case
        when counted.is_outermost
            then (case when counted.is_staged then -counted.place else counted.place end)::integer
    end as signed_place,
    counted.free_ns,
    steps.place as step_place
from counted
inner join threads on counted.thread = threads.thread
left join staging.stg_numbered_steps as steps
    on
        counted.begun = steps.place
        and threads.global_tid = steps.global_tid
        and counted.start_ns < steps.end_ns;

comment on table staging.stg_calls is
'CUDA API calls in order of thread and time. Those that no other call contains are numbered from 1 (signed_place, NULL for the others), below 0 those that returned when a copy to pageable memory was done. free_ns: the latest end of the calls before, NULL for the first of a thread. step_place: the step in whose range the call was made. Grain: one call. Key: none.';
