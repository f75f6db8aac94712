create view staging.stg_collective_progress as
-- Sorted once; windows without an order of their own then take the rows as they come
-- (docs/performance.md: nothing but projections and filters may stand between).
with in_order as (
    select
        kernel_id,
        global_pid,
        device_id,
        context_id,
        stream_id,
        place,
        class,
        case when class = 'moe_gemm' then busy_ns else 0 end as moe_ns,
        case when class not in ('moe_gemm', 'collective') then busy_ns else 0 end as other_ns,
        late_ns,
        gap_ns - late_ns as gap_ns
    from main.gpu_work
    order by global_pid, device_id, context_id, stream_id, place
),

-- Over all streams together: what is asked for are differences within one.
running as (
    select
        kernel_id,
        context_id,
        stream_id,
        class,
        place > 1 and (
            place - lag(place) over () != 1
            or global_pid is distinct from lag(global_pid) over ()
            or device_id != lag(device_id) over ()
            or context_id is distinct from lag(context_id) over ()
            or stream_id is distinct from lag(stream_id) over ()
        ) as is_disordered,
        sum(moe_ns) over so_far as moe_ns,
        sum(other_ns) over so_far as other_ns,
        sum(late_ns) over so_far as late_ns,
        sum(gap_ns) over so_far as gap_ns
    from in_order
    -- sqlfluff knows no window without an order.
    window so_far as (rows between unbounded preceding and current row)  -- noqa: PRS
)

select
    kernel_id,
    context_id,
    stream_id,
    moe_ns::bigint as moe_ns,
    other_ns::bigint as other_ns,
    late_ns::bigint as late_ns,
    gap_ns::bigint as gap_ns
from running
where case when is_disordered then error('rows came out of order') else class = 'collective' end;

comment on view staging.stg_collective_progress is
'What its stream has done up to each communication kernel, and all streams sorted before it: MoE kernels, other work, gaps in which the launch was late, other gaps. Grain: one communication kernel. Key: kernel_id.';
