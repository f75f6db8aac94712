create table main.moe_launches as
with placed as (
    select
        launches.*,
        places.step,
        places.phase,
        places.layer as named_layer,
        periods.layers as period,
        launches.layer_ordinal
        + coalesce((periods.layers - periods.first_layers) % periods.layers, 0)
            as period_ordinal
    from staging.stg_moe_products as launches
    left join staging.stg_moe_places as places on launches.kernel_id = places.kernel_id
    left join staging.stg_step_periods as periods on launches.rank = periods.rank
),

per_step as (
    select
        rank,
        step,
        count(*) filter (where gemm = 'w13') as layers,
        min(layer_ordinal) as first_layer,
        arg_min(gemm, ordinal) as first_gemm
    from placed
    where step is not null
    group by rank, step
),

-- The number of layers is sure only where every step launches as many as every other, and none
-- begins in the middle of another.
layout as (
    select
        case
            when
                min(layers) = max(layers)
                and min(layers) > 0
                and bool_and(first_gemm = 'w13')
                and max(first_layer % nullif(layers, 0)) = 0
                then min(layers)
        end as layers
    from per_step
),

ranges as (
    select count(*) > 0 as has_ranges
    from staging.stg_stepping_processes
),

passes as (
    select
        rank,
        floor(period_ordinal / period)::bigint as pass,
        bool_and(step is null) as is_outside
    from placed
    where period is not null
    group by rank, floor(period_ordinal / period)::bigint
),

ranked as (
    select
        rank,
        any_value(global_pid) as global_pid
    from placed
    group by rank
),

-- Where a step with requests has no launch, its launches are among those outside: another thread
-- made the calls, or they were not recorded.
incomplete as (
    select distinct steps.global_pid
    from main.steps as steps
    left join placed on steps.global_pid = placed.global_pid and steps.step = placed.step
    where steps.context_requests + steps.generation_requests > 0 and placed.step is null
),

spans as (
    select
        ranks.rank,
        min(passes.pass) as lowest,
        max(passes.pass) as highest,
        max(passes.pass) filter (where not passes.is_outside) as last_pass
    from passes
    inner join ranked as ranks on passes.rank = ranks.rank
    left join incomplete on ranks.global_pid = incomplete.global_pid
    where incomplete.global_pid is null
    group by ranks.rank
),

-- Of a rank that has ranges at all: its very first pass may be a step that the capture began in the
-- middle of, and one alone after the last range a step that it ended in.

dummies as (
    select
        passes.rank,
        passes.pass
    from passes
    inner join spans on passes.rank = spans.rank
    where
        passes.is_outside
        and passes.pass > spans.lowest
        and (passes.pass < spans.last_pass or spans.highest > spans.last_pass + 1)
),

sized as (
    select
        rank,
        layer_ordinal,
        max(blocks) filter (where gemm = 'w13') as blocks
    from staging.stg_moe_products
    group by rank, layer_ordinal
)

select
    placed.kernel_id,
    placed.name_id,
    placed.global_pid,
    placed.process_id,
    placed.device_id,
    placed.rank,
    placed.ordinal,
    case
        when ranges.has_ranges then placed.step
        else floor(placed.period_ordinal / placed.period)::bigint
    end as step,
    floor(placed.period_ordinal / placed.period)::bigint as pass,
    case
        when dummies.pass is not null then 'dummy'
        when grids.largest_decode_blocks is null then placed.phase
        when sized.blocks <= grids.largest_decode_blocks then 'decode'
        when sized.blocks > grids.largest_decode_blocks then 'prefill'
    end as phase,
    case
        when placed.phase is not null then 'nvtx'
        when dummies.pass is not null then 'pass'
        when grids.largest_decode_blocks is not null and sized.blocks is not null then 'grid'
    end as phase_source,
    coalesce(
        placed.named_layer,
        (placed.layer_ordinal + layout.layers) % layout.layers,
        (placed.period_ordinal + placed.period) % placed.period
    ) as layer,
    case
        when placed.named_layer is not null then 'nvtx'
        when layout.layers is not null or placed.period is not null then 'order'
    end as layer_source,
    placed.gemm,
    placed.blocks,
    placed.start_ns,
    placed.dur_ns
from placed
cross join layout
cross join ranges
left join staging.stg_grid_phases as grids on true
left join dummies
    on
        placed.rank = dummies.rank
        and floor(placed.period_ordinal / placed.period)::bigint = dummies.pass
left join sized
    on placed.rank = sized.rank and placed.layer_ordinal = sized.layer_ordinal;

comment on table main.moe_launches is
'MoE kernels with rank, step, phase, layer and product. Grain: one kernel execution on a GPU. Key: kernel_id. Invariant: the rows of moe_kernels.';
comment on column main.moe_launches.kernel_id is 'Row number in CUPTI_ACTIVITY_KIND_KERNEL';
comment on column main.moe_launches.name_id is 'Number of the kernel''s name: equal exactly where the name is';
comment on column main.moe_launches.global_pid is 'Process as nsys serialises it (hardware, VM, pid)';
comment on column main.moe_launches.process_id is 'Process id on its host, or in its container';
comment on column main.moe_launches.device_id is 'CUDA ordinal of the GPU, as this process counts';
comment on column main.moe_launches.rank is 'Number of the process and device among those that ran MoE kernels, from 0';
comment on column main.moe_launches.ordinal is 'Place in the order of the rank''s MoE kernels, from 0: equal ordinals are one cell';
comment on column main.moe_launches.step is 'Step of the process (steps.step) by the API call that launched the kernel; without ranges, by the kernels that run once a step; NULL where neither tells';
comment on column main.moe_launches.pass is 'Forward pass of the model by the kernels that run once in each, from 0, passes outside any range counted; NULL where no kernels tell';
comment on column main.moe_launches.phase is 'Phase of that step; dummy for a pass of a process with ranges that lies outside all of them (data-parallel ranks without requests keep step with the others); without ranges, decode or prefill by the grid size of the layer''s first product; NULL where none tells';
comment on column main.moe_launches.phase_source is 'How the phase is known: nvtx, pass (dummy passes) or grid; NULL where it is not';
comment on column main.moe_launches.layer is 'MoE layer: by NVTX ranges that name layers, else from 0 by the order within a step; NULL where steps differ in launches';
comment on column main.moe_launches.layer_source is 'How the layer is known: nvtx or order; NULL where it is not';
comment on column main.moe_launches.gemm is 'w13 (gate and up, after routing) or w2 (down), by the kernels before it, or by order alone where nothing routes';
comment on column main.moe_launches.blocks is 'Blocks in the grid: grows with the tokens of the launch';
comment on column main.moe_launches.start_ns is 'Start, ns since the zero of the capture';
comment on column main.moe_launches.dur_ns is 'Duration, ns';
