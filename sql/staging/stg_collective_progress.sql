create table staging.stg_collective_progress as
-- Rows come sorted (stg_measured_work): windows without an order of their own take them as they are
-- (docs/performance.md: nothing but projections and filters may stand between).
with worked as (
    select
        kernel_id,
        stream,
        position,
        is_collective,
        -- One running sum takes as long as another, whatever its width: a part of what is summed
        -- stands in the lower half of one number. It never carries, since no part is more than the
        -- whole, and a whole that does not fit is an error.
        (case when is_collective then 0 else busy_ns end)::hugeint * 18446744073709551616
        + case when is_moe then busy_ns else 0 end as busy_and_moe,
        gap_ns::hugeint * 18446744073709551616 + late_ns as gap_and_late
    from staging.stg_measured_work
),

-- Over all streams together: what is asked for are differences within one.
running as (
    select
        kernel_id,
        stream,
        position,
        is_collective,
        lag(position) over () > position as is_disordered,
        sum(busy_and_moe) over so_far as busy_and_moe,
        sum(gap_and_late) over so_far as gap_and_late
    from worked
    -- sqlfluff knows no window without an order.
    window so_far as (rows between unbounded preceding and current row)  -- noqa: PRS
),

progressed as (
    select
        kernel_id,
        stream,
        position,
        (busy_and_moe >> 64)::bigint as busy_ns,
        (busy_and_moe & 18446744073709551615)::bigint as moe_ns,
        (gap_and_late >> 64)::bigint as idle_ns,
        (gap_and_late & 18446744073709551615)::bigint as late_ns
    from running
    where case when is_disordered then error('rows came out of order') else is_collective end
)

select
    progressed.kernel_id,
    streams.context_id,
    streams.stream_id,
    progressed.position,
    progressed.moe_ns,
    progressed.busy_ns - progressed.moe_ns as other_ns,
    progressed.late_ns,
    progressed.idle_ns - progressed.late_ns as gap_ns
from progressed
inner join staging.stg_streams as streams on progressed.stream = streams.stream;

comment on table staging.stg_collective_progress is
'What its stream has done up to each communication kernel, and all streams sorted before it: MoE kernels, other work, gaps in which the launch was late, other gaps. Kept, so that the sort of all work is over before the waits are sorted. Grain: one communication kernel. Key: kernel_id.';
