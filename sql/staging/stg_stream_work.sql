create table staging.stg_stream_work as
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

-- Sorted once; windows without an order of their own then take the rows as they come
-- (docs/performance.md: nothing but projections and filters may stand between).
in_order as (
    select
        streams.stream,
        work.kernel_id,
        work.name_id,
        work.correlation_id,
        work.start_ns,
        work.end_ns
    from work
    inner join staging.stg_streams as streams
        on
            work.device_id = streams.device_id
            and work.global_pid is not distinct from streams.global_pid
            and work.context_id is not distinct from streams.context_id
            and work.stream_id is not distinct from streams.stream_id
    -- Keys of at most 24 bytes are sorted three times as fast as longer ones.
    order by streams.stream, work.start_ns, work.end_ns
),

-- The numbers of streams are so far apart that no time of one reaches into the next.
apart as (
    select
        *,
        stream::hugeint * 18446744073709551616 as zero
    from in_order
),

reached as (
    select
        *,
        row_number() over () as position,
        max(zero + end_ns) over so_far as reach
    from apart
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
    kernel_id,
    name_id,
    correlation_id,
    stream,
    position,
    start_ns,
    end_ns,
    previous_end_ns
from placed
where case when is_disordered then error('rows came out of order') else true end;

comment on table staging.stg_stream_work is
'Kernels and copies of each stream in order (position, from 1 over all streams), with the last end before each. Grain: one kernel or copy. Key: position.';
