create view staging.stg_measured_work as
-- Sorted once; windows without an order of their own then take the rows as they come
-- (docs/performance.md: nothing but projections and filters may stand between).
with in_order as (
    select
        work.kernel_id,
        work.name_id,
        work.stream,
        work.start_ns,
        work.end_ns,
        work.global_tid,
        work.call_start_ns,
        work.call_end_ns,
        coalesce(functions.class = 'moe_gemm', false) as is_moe,
        coalesce(functions.class = 'collective', false) as is_collective
    from staging.stg_work as work
    left join nsysmoe.kernel_functions as functions on work.name_id = functions.name_id
    -- Keys of at most 24 bytes are sorted three times as fast as longer ones.
    order by work.stream, work.start_ns, work.end_ns
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
),

measured as (
    select
        *,
        greatest(start_ns - previous_end_ns, 0) as gap_ns,
        -- What it adds to the time in which the stream was busy.
        greatest(end_ns - greatest(start_ns, coalesce(previous_end_ns, start_ns)), 0) as busy_ns
    from placed
    where case when is_disordered then error('rows came out of order') else true end
)

select
    kernel_id,
    name_id,
    stream,
    position,
    start_ns,
    end_ns,
    previous_end_ns,
    global_tid,
    call_start_ns,
    call_end_ns,
    is_moe,
    is_collective,
    gap_ns,
    busy_ns,
    -- The stream had nothing to do, and the host had not finished launching this.
    least(greatest(coalesce(call_end_ns - previous_end_ns, 0), 0), gap_ns) as late_ns
from measured;

comment on view staging.stg_measured_work is
'Kernels and copies of each stream in order (position, from 1 over all streams), with the last end before each and what follows: time in which the stream was busy, the gap before, and the part of the gap in which the host had not finished the launch. Grain: one kernel or copy. Key: position. Invariant: the rows of stg_work.';
