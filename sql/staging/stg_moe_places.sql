create view staging.stg_moe_places as
select
    launches.kernel_id,
    steps.step,
    steps.phase,
    layers.layer
from main.moe_kernels as launches
left join staging.stg_step_calls as steps
    on
        launches.global_pid = steps.global_pid
        and launches.correlation_id = steps.correlation_id
left join staging.stg_layer_calls as layers
    on
        launches.global_pid = layers.global_pid
        and launches.correlation_id = layers.correlation_id;

comment on view staging.stg_moe_places is
'MoE kernels with the step and the layer whose ranges hold the call that launched them. Grain: one kernel execution on a GPU. Key: kernel_id. Invariant: the rows of moe_kernels.';
