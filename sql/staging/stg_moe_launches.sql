create table staging.stg_moe_launches as
select
    kernel_id,
    name_id,
    global_pid,
    process_id,
    device_id,
    correlation_id,
    start_ns,
    dur_ns,
    dense_rank() over (order by global_pid >> 48, device_id, global_pid) - 1 as rank,
    row_number() over (
        partition by global_pid, device_id
        order by start_ns, dur_ns
    ) - 1 as ordinal
from main.moe_kernels;

comment on table staging.stg_moe_launches is
'MoE kernels with their place in the order of their rank. Grain: one launch. Key: kernel_id. Invariant: the rows of moe_kernels.';
