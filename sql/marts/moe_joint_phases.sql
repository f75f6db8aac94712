create view main.moe_joint_phases as
select
    rank,
    global_pid,
    device_id,
    phase,
    count(*) as launches,
    sum(dur_ns)::bigint as dur_ns
from main.joint_launches
group by rank, global_pid, device_id, phase;

comment on view main.moe_joint_phases is
'MoE kernels summed by the phase of all ranks together. Grain: one phase on one rank. Key: (rank, phase). Invariant: the sums of joint_launches.';
comment on column main.moe_joint_phases.rank is 'Number of the rank, from 0 (moe_ranks)';
comment on column main.moe_joint_phases.global_pid is 'Process as nsys serialises it (hardware, VM, pid)';
comment on column main.moe_joint_phases.device_id is 'CUDA ordinal of the GPU, as this process counts';
comment on column main.moe_joint_phases.phase is 'Phase of all ranks together (joint_launches.phase)';
comment on column main.moe_joint_phases.launches is 'MoE kernels';
comment on column main.moe_joint_phases.dur_ns is 'Their time together, ns';
