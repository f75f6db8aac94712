create table staging.stg_moe_products as
with followed as (
    select
        *,
        -- Of the first nobody knows what was before: a second product after it makes it w13.
        coalesce(
            lag(is_product) over in_order,
            not lead(is_product) over in_order,
            false
        ) as follows_product,
        bool_or(not is_product) over (partition by global_pid, device_id) as has_routing
    from staging.stg_moe_around
    window in_order as (partition by global_pid, device_id order by start_ns, dur_ns)
),

-- Tokens are routed and sorted before a layer's first product and not between its two. A rank
-- without those kernels leaves the order: w13, w2, w13, ...
told as (
    select
        launches.*,
        followed.blocks,
        case
            when followed.has_routing then not followed.follows_product
            else launches.ordinal % 2 = 0
        end as is_first
    from staging.stg_moe_launches as launches
    inner join followed on launches.kernel_id = followed.kernel_id
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
    rank,
    ordinal,
    blocks,
    case when is_first then 'w13' else 'w2' end as gemm,
    (sum(is_first::bigint) over (partition by rank order by ordinal))::bigint - 1 as layer_ordinal
from told;

comment on table staging.stg_moe_products is
'MoE kernels with the product of their layer and the layers that their rank has begun (layer_ordinal, from 0; -1 for a second product that the capture begins with). Grain: one launch. Key: kernel_id. Invariant: the rows of stg_moe_launches.';
