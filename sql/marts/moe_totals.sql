create view main.moe_totals as
select
    name_id,
    global_pid,
    process_id,
    device_id,
    count(*) as launches,
    sum(dur_ns)::bigint as dur_ns
from staging.stg_moe_launches
group by name_id, global_pid, process_id, device_id;

comment on view main.moe_totals is
'MoE kernels summed by name and device. Grain: one kernel name on one device of one process. Key: (name_id, global_pid, device_id). Invariant: the sums of moe_kernels.';
comment on column main.moe_totals.name_id is 'Number of the kernel''s name: equal exactly where the name is';
comment on column main.moe_totals.global_pid is 'Process as nsys serialises it (hardware, VM, pid)';
comment on column main.moe_totals.process_id is 'Process id on its host, or in its container';
comment on column main.moe_totals.device_id is 'CUDA ordinal of the GPU, as this process counts';
comment on column main.moe_totals.launches is 'MoE kernels';
comment on column main.moe_totals.dur_ns is 'Their time together, ns';
