create table staging.stg_collective_progress as
-- Sorted once; windows without an order of their own then take the rows as they come
-- (docs/performance.md: nothing but projections and filters may stand between).
with in_order as (
    select
        position,
        stream,
        kernel_id,
        class = 'collective' as is_collective,
        case when class = 'moe_gemm' then busy_ns else 0 end as moe_ns,
        case when class not in ('moe_gemm', 'collective') then busy_ns else 0 end as other_ns,
        late_ns,
        gap_ns - late_ns as gap_ns
    from staging.stg_measured_work
    order by position
),

-- Over all streams together: what is asked for are differences within one.
running as (
    select
        kernel_id,
        stream,
        position,
        is_collective,
        lag(position) over () > position as is_disordered,
        sum(moe_ns) over so_far as moe_ns,
        sum(other_ns) over so_far as other_ns,
        sum(late_ns) over so_far as late_ns,
        sum(gap_ns) over so_far as gap_ns
    from in_order
    -- sqlfluff knows no window without an order.
    window so_far as (rows between unbounded preceding and current row)  -- noqa: PRS
),

progressed as (
    select *
    from running
    where case when is_disordered then error('rows came out of order') else is_collective end
)

select
    progressed.kernel_id,
    streams.context_id,
    streams.stream_id,
    progressed.position,
    progressed.moe_ns::bigint as moe_ns,
    progressed.other_ns::bigint as other_ns,
    progressed.late_ns::bigint as late_ns,
    progressed.gap_ns::bigint as gap_ns
from progressed
inner join staging.stg_streams as streams on progressed.stream = streams.stream;

comment on table staging.stg_collective_progress is
'What its stream has done up to each communication kernel, and all streams sorted before it: MoE kernels, other work, gaps in which the launch was late, other gaps. Kept, so that the sort of all work is over before the waits are sorted. Grain: one communication kernel. Key: kernel_id.';
