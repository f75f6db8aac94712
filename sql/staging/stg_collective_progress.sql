create view staging.stg_collective_progress as
with running as (
    select
        kernel_id,
        context_id,
        stream_id,
        class,
        sum(case when class = 'moe_gemm' then busy_ns else 0 end) over up_to as moe_ns,
        sum(case when class not in ('moe_gemm', 'collective') then busy_ns else 0 end) over up_to
            as other_ns,
        sum(late_ns) over up_to as late_ns,
        sum(gap_ns - late_ns) over up_to as gap_ns
    from main.gpu_work
    window up_to as (
        partition by global_pid, device_id, context_id, stream_id
        order by place
        rows between unbounded preceding and current row
    )
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
where class = 'collective';

comment on view staging.stg_collective_progress is
'What its stream has done up to each communication kernel, from the beginning of the capture: MoE kernels, other work, gaps in which the launch was late, other gaps. Grain: one communication kernel. Key: kernel_id.';
