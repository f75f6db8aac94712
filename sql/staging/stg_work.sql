create table staging.stg_work as
with work as (
    select
        kernel_id,
        global_pid,
        device_id,
        context_id,
        stream_id,
        correlation_id,
        name_id,
        start_ns,
        end_ns
    from main.kernels
    union all
    select
        null as kernel_id,
        global_pid,
        device_id,
        context_id,
        stream_id,
        correlation_id,
        null as name_id,
        start_ns,
        end_ns
    from staging.stg_copies
),

-- Not of work, which would be held whole to be read twice.
counted as (
    select
        global_pid,
        device_id,
        context_id,
        stream_id,
        count(*) as work
    from staging.stg_kernels
    group by global_pid, device_id, context_id, stream_id
    union all
    select
        global_pid,
        device_id,
        context_id,
        stream_id,
        count(*) as work
    from staging.stg_copies
    group by global_pid, device_id, context_id, stream_id
),

added as (
    select
        global_pid,
        device_id,
        context_id,
        stream_id,
        sum(work)::bigint as work
    from counted
    group by global_pid, device_id, context_id, stream_id
),

-- The numbers of streams are so far apart that no time of one reaches into the next.
streams as (
    select
        *,
        row_number() over in_order * 18446744073709551616::hugeint as zero,
        (sum(work) over in_order)::bigint - work as before
    from added
    window in_order as (order by global_pid, device_id, context_id, stream_id)
),

-- Sorted once; windows without an order of their own then take the rows as they come
-- (docs/performance.md: nothing but projections and filters may stand between).
in_order as (
    select
        work.*,
        streams.zero,
        streams.before
    from work
    inner join streams
        on
            work.device_id = streams.device_id
            and work.global_pid is not distinct from streams.global_pid
            and work.context_id is not distinct from streams.context_id
            and work.stream_id is not distinct from streams.stream_id
    order by streams.zero, work.start_ns, work.end_ns
),

reached as (
    select
        *,
        row_number() over () - before as place,
        max(zero + end_ns) over so_far as reach
    from in_order
    -- sqlfluff knows no window without an order.
    window so_far as (rows between unbounded preceding and current row)  -- noqa: PRS
),

placed as (
    select
        *,
        -- Out of reach where the row before is another stream's.
        try_cast(lag(reach) over () - zero as bigint) as previous_end_ns,
        lag(zero + start_ns) over () > zero + start_ns as is_disordered
    from reached
)

select
    placed.kernel_id,
    placed.name_id,
    placed.global_pid,
    placed.device_id,
    placed.context_id,
    placed.stream_id,
    placed.place,
    placed.start_ns,
    placed.end_ns,
    placed.previous_end_ns,
    calls.global_tid,
    calls.start_ns as call_start_ns,
    calls.end_ns as call_end_ns
from placed
left join staging.stg_api_calls as calls
    on
        placed.global_pid = calls.global_pid
        and placed.correlation_id = calls.correlation_id
where case when placed.is_disordered then error('rows came out of order') else true end;

comment on table staging.stg_work is
'Kernels and copies of each stream in order, with the last end before each and the call that launched it. What follows from these by a sum is left to gpu_work: each column of ten million rows takes time to keep. Grain: one kernel or copy. Key: (global_pid, device_id, context_id, stream_id, place).';
