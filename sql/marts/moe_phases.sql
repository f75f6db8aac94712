create view main.moe_phases as
select
    rank,
    global_pid,
    device_id,
    phase,
    phase_source,
    layer,
    layer_source,
    count(*) as launches,
    sum(dur_ns)::bigint as dur_ns
from main.phased_launches
group by rank, global_pid, device_id, phase, phase_source, layer, layer_source;

comment on view main.moe_phases is
'MoE kernels summed by phase and layer, with how both are known. Grain: one layer in one phase on one rank, known in one way. Key: (rank, phase, phase_source, layer, layer_source). Invariant: the sums of phased_launches.';
comment on column main.moe_phases.rank is 'Number of the rank, from 0 (moe_ranks)';
comment on column main.moe_phases.global_pid is 'Process as nsys serialises it (hardware, VM, pid)';
comment on column main.moe_phases.device_id is 'CUDA ordinal of the GPU, as this process counts';
comment on column main.moe_phases.phase is 'Phase of the step (phased_launches.phase); NULL where none is known';
comment on column main.moe_phases.phase_source is 'How the phase is known: nvtx, pass, grid or duration; NULL where it is not';
comment on column main.moe_phases.layer is 'MoE layer, from 0; NULL where it is not sure';
comment on column main.moe_phases.layer_source is 'How the layer is known: nvtx or order; NULL where it is not';
comment on column main.moe_phases.launches is 'MoE kernels';
comment on column main.moe_phases.dur_ns is 'Their time together, ns';
