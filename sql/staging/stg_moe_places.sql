create view staging.stg_moe_places as
select
    launches.kernel_id,
    launches.step,
    launches.phase,
    layers.layer
from staging.stg_placed_work as launches
left join staging.stg_layer_calls as layers on launches.kernel_id = layers.kernel_id
where launches.class = 'moe_gemm';

comment on view staging.stg_moe_places is
'MoE kernels with the step and the layer whose ranges hold the call that launched them. Grain: one kernel execution on a GPU. Key: kernel_id. Invariant: the rows of moe_kernels.';
