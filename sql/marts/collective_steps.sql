create view main.collective_steps as
with placed as (
    select
        places.kernel_id,
        places.step,
        places.phase,
        streams.global_pid,
        streams.device_id,
        places.start_ns
    from staging.stg_placed_work as places
    inner join staging.stg_streams as streams on places.stream = streams.stream
    where places.class = 'collective'
),

-- No range holds the calls of a dummy pass: it is a stretch of its device's time.
dummies as (
    select
        placed.kernel_id,
        cuts.phase
    from placed
    asof inner join main.device_steps as cuts
        on
            placed.global_pid = cuts.global_pid
            and placed.device_id = cuts.device_id
            and placed.start_ns >= cuts.start_ns
    where placed.step is null and cuts.phase = 'dummy'
)

select
    placed.kernel_id,
    placed.step,
    coalesce(placed.phase, dummies.phase) as phase
from placed
left join dummies on placed.kernel_id = dummies.kernel_id;

comment on view main.collective_steps is
'Where communication kernels stand in the schedule; apart from matched_collectives, since it takes the API calls and the ranges to know. Grain: one kernel execution on one GPU. Key: kernel_id. Invariant: the rows of collectives.';
comment on column main.collective_steps.kernel_id is 'Row number in CUPTI_ACTIVITY_KIND_KERNEL';
comment on column main.collective_steps.step is 'Step of the process (steps.step) by the API call that launched the kernel; NULL outside any range';
comment on column main.collective_steps.phase is 'Phase of that step; dummy in a pass that serves no request (moe_launches.phase), from its first MoE kernel on; else NULL outside any range';
