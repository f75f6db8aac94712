create view main.collective_steps as
select
    kernel_id,
    step,
    phase
from staging.stg_placed_work
where class = 'collective';

comment on view main.collective_steps is
'Where communication kernels stand in the schedule; apart from matched_collectives, since it takes the API calls and the ranges to know. Grain: one kernel execution on one GPU. Key: kernel_id. Invariant: the rows of collectives.';
comment on column main.collective_steps.kernel_id is 'Row number in CUPTI_ACTIVITY_KIND_KERNEL';
comment on column main.collective_steps.step is 'Step of the process (steps.step) by the API call that launched the kernel; NULL outside any range';
comment on column main.collective_steps.phase is 'Phase of that step; NULL outside any range';
