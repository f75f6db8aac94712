create view main.moe_launches as
with stepped as (
    select
        launches.*,
        steps.step,
        steps.phase
    from staging.stg_moe_launches as launches
    left join staging.stg_moe_steps as steps on launches.kernel_id = steps.kernel_id
),

per_step as (
    select
        rank,
        step,
        count(*) as launches,
        min(ordinal) as first_ordinal
    from stepped
    where step is not null
    group by rank, step
),

-- Two products a layer, w13 then w2. The number of layers is sure only where every step launches
-- as many as every other, and none begins in the middle of another.
layout as (
    select
        case
            when
                min(launches) = max(launches)
                and min(launches) % 2 = 0
                and max(first_ordinal % launches) = 0
                then min(launches) // 2
        end as layers
    from per_step
)

select
    stepped.kernel_id,
    stepped.global_pid,
    stepped.process_id,
    stepped.device_id,
    stepped.rank,
    stepped.ordinal,
    stepped.step,
    stepped.phase,
    stepped.ordinal // 2 % layout.layers as layer,
    case
        when layout.layers is null then null
        when stepped.ordinal % 2 = 0 then 'w13'
        else 'w2'
    end as gemm,
    stepped.start_ns,
    stepped.dur_ns
from stepped
cross join layout;

comment on view main.moe_launches is
'MoE kernels with rank, step, phase, layer and product. Grain: one kernel execution on a GPU. Key: kernel_id. Invariant: the rows of moe_kernels.';
comment on column main.moe_launches.kernel_id is 'Row number in CUPTI_ACTIVITY_KIND_KERNEL';
comment on column main.moe_launches.global_pid is 'Process as nsys serialises it (hardware, VM, pid)';
comment on column main.moe_launches.process_id is 'Process id on its host, or in its container';
comment on column main.moe_launches.device_id is 'CUDA ordinal of the GPU, as this process counts';
comment on column main.moe_launches.rank is 'Number of the process and device among those that ran MoE kernels, from 0';
comment on column main.moe_launches.ordinal is 'Place in the order of the rank''s MoE kernels, from 0: equal ordinals are one cell';
comment on column main.moe_launches.step is 'Step of the process (steps.step) by the API call that launched the kernel; NULL outside any range';
comment on column main.moe_launches.phase is 'Phase of that step; NULL outside any range';
comment on column main.moe_launches.layer is 'MoE layer, from 0, by the order within a step; NULL where steps differ in launches';
comment on column main.moe_launches.gemm is 'w13 (gate and up) or w2 (down), by the order within a layer; NULL as layer';
comment on column main.moe_launches.start_ns is 'Start, ns since the zero of the capture';
comment on column main.moe_launches.dur_ns is 'Duration, ns';
