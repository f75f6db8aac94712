create table staging.stg_moe_launches as
with around as (
    select
        kernel_id,
        name_id,
        global_pid,
        process_id,
        device_id,
        correlation_id,
        start_ns,
        dur_ns,
        grid_x * grid_y * grid_z as blocks,
        class = 'moe_gemm' as is_product
    from main.kernels
    where
        class = 'moe_gemm'
        or (class = 'moe_support' and role in ('route', 'sort'))
),

followed as (
    select
        *,
        lag(is_product, 1, false) over (
            partition by global_pid, device_id
            order by start_ns, dur_ns
        ) as follows_product,
        bool_or(not is_product) over () as has_routing
    from around
),

numbered as (
    select
        *,
        dense_rank() over (order by device_id, global_pid) - 1 as rank,
        row_number() over (
            partition by global_pid, device_id
            order by start_ns, dur_ns
        ) - 1 as ordinal
    from followed
    where is_product
),

-- Tokens are routed and sorted before a layer's first product and not between its two. A trace
-- without those kernels leaves the order: w13, w2, w13, ...
told as (
    select
        *,
        case when has_routing then not follows_product else ordinal % 2 = 0 end as is_first
    from numbered
)

select
    kernel_id,
    name_id,
    global_pid,
    process_id,
    device_id,
    correlation_id,
    start_ns,
    dur_ns,
    blocks,
    rank,
    ordinal,
    case when is_first then 'w13' else 'w2' end as gemm,
    (sum(is_first::bigint) over (partition by rank order by ordinal))::bigint - 1 as layer_ordinal
from told;

comment on table staging.stg_moe_launches is
'MoE kernels with their place in the order of their rank; layer_ordinal counts the layers that the rank has begun. Grain: one launch. Key: kernel_id. Invariant: the rows of moe_kernels.';
