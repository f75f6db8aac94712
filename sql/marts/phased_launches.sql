create view main.phased_launches as
with told as (
    select
        launches.ordinal,
        launches.gemm,
        -- The slowest rank decides for all: that is how long the cell took.
        case
            when max(launches.dur_ns) > any_value(partings.parting_ns) then 'prefill'
            else 'decode'
        end as phase
    from main.moe_launches as launches
    inner join nsysmoe.phase_partings as partings
        on launches.gemm is not distinct from partings.gemm
    group by launches.ordinal, launches.gemm
)

select
    launches.global_pid,
    launches.device_id,
    launches.rank,
    launches.ordinal,
    launches.step,
    launches.pass,
    coalesce(told.phase, launches.phase) as phase,
    case
        when told.phase is not null then 'duration'
        else launches.phase_source
    end as phase_source,
    launches.layer,
    launches.layer_source,
    launches.gemm,
    launches.blocks,
    launches.start_ns,
    launches.dur_ns
from main.moe_launches as launches
left join told
    on launches.ordinal = told.ordinal and launches.gemm is not distinct from told.gemm;

comment on view main.phased_launches is
'moe_launches, phases told by duration where an analysis found that nothing else tells them. Grain: one kernel execution on a GPU. Key: (rank, ordinal). Invariant: the rows of moe_launches; equal to them in a query of your own.';
comment on column main.phased_launches.global_pid is 'Process as nsys serialises it (hardware, VM, pid)';
comment on column main.phased_launches.device_id is 'CUDA ordinal of the GPU, as this process counts';
comment on column main.phased_launches.rank is 'Number of the rank, from 0 (moe_ranks)';
comment on column main.phased_launches.ordinal is 'Place in the order of the rank''s MoE kernels, from 0: equal ordinals are one cell';
comment on column main.phased_launches.step is 'Step, as moe_launches has it; NULL where none is known';
comment on column main.phased_launches.pass is 'Forward pass of the model, as moe_launches has it; NULL where no kernels tell';
comment on column main.phased_launches.phase is 'Phase of the step (moe_launches.phase); by duration prefill or decode; NULL where none is known';
comment on column main.phased_launches.phase_source is 'How the phase is known: nvtx, pass, grid or duration; NULL where it is not';
comment on column main.phased_launches.layer is 'MoE layer, from 0; NULL where it is not sure';
comment on column main.phased_launches.layer_source is 'How the layer is known: nvtx or order; NULL where it is not';
comment on column main.phased_launches.gemm is 'w13 or w2';
comment on column main.phased_launches.blocks is 'Blocks in the grid: grows with the tokens of the launch';
comment on column main.phased_launches.start_ns is 'Start, ns since the zero of the capture';
comment on column main.phased_launches.dur_ns is 'Duration, ns';
