create view staging.stg_placed_work as
select
    work.kernel_id,
    work.stream,
    work.start_ns,
    work.global_tid,
    work.call_start_ns,
    functions.class,
    steps.step,
    steps.phase
from staging.stg_work as work
inner join nsysmoe.kernel_functions as functions on work.name_id = functions.name_id
left join staging.stg_numbered_steps as steps on work.step_place = steps.place;

comment on view staging.stg_placed_work is
'Kernels with the call that launched each and the step in whose range it was made; the kernels of a replayed CUDA graph share the call that launched it. Grain: one kernel execution on a GPU. Key: kernel_id.';
