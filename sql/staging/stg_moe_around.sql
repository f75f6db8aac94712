create view staging.stg_moe_around as
select
    kernel_id,
    global_pid,
    device_id,
    start_ns,
    dur_ns,
    grid_x * grid_y * grid_z as blocks,
    class = 'moe_gemm' as is_product
from main.kernels
where
    class = 'moe_gemm'
    or (class = 'moe_support' and role in ('route', 'sort'));

comment on view staging.stg_moe_around is
'MoE kernels and those that route and sort tokens for them. Grain: one kernel execution on a GPU. Key: kernel_id.';
