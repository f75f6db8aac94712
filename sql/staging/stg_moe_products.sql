create table staging.stg_moe_products as
with ranks as (
    select
        launches.rank::integer as rank,
        any_value(launches.global_pid) as global_pid,
        any_value(launches.device_id) as device_id,
        (sum(count(*)) over (order by launches.rank))::bigint - count(*) as before
    from staging.stg_moe_launches as launches
    group by launches.rank
),

routed as (
    select
        ranks.rank,
        ranks.before,
        ranks.global_pid,
        ranks.device_id,
        bool_or(not events.is_product) as has_routing
    from staging.stg_moe_around as events
    inner join ranks
        on
            events.global_pid is not distinct from ranks.global_pid
            and events.device_id = ranks.device_id
    group by ranks.rank, ranks.before, ranks.global_pid, ranks.device_id
),

-- Sorted once; windows without an order of their own then take the rows as they come
-- (docs/performance.md: nothing but projections and filters may stand between).
in_order as (
    select
        routed.rank,
        routed.before,
        routed.has_routing,
        events.kernel_id,
        events.start_ns,
        events.blocks,
        events.is_product
    from staging.stg_moe_around as events
    inner join routed
        on
            events.global_pid is not distinct from routed.global_pid
            and events.device_id = routed.device_id
    order by routed.rank, events.start_ns, events.dur_ns
),

followed as (
    select
        *,
        -- Of the first nobody knows what was before: a second product after it makes it w13.
        coalesce(
            case when lag(rank) over () = rank then lag(is_product) over () end,
            case when lead(rank) over () = rank then not lead(is_product) over () end,
            false
        ) as follows_product,
        lag(rank) over () > rank
        or (lag(rank) over () = rank and lag(start_ns) over () > start_ns) as is_disordered
    from in_order
),

numbered as (
    select
        *,
        row_number() over () - before - 1 as ordinal
    from followed
    where case when is_disordered then error('rows came out of order') else is_product end
),

-- Tokens are routed and sorted before a layer's first product and not between its two. A rank
-- without those kernels leaves the order: w13, w2, w13, ...
told as (
    select
        *,
        case when has_routing then not follows_product else ordinal % 2 = 0 end as is_first
    from numbered
),

begun as (
    select
        *,
        (sum(is_first::integer) over so_far)::bigint as layers
    from told
    -- sqlfluff knows no window without an order.
    window so_far as (rows between unbounded preceding and current row)  -- noqa: PRS
),

-- Layers of all ranks before are not this one's.
counted as (
    select
        *,
        layers - max(case when ordinal = 0 then layers - is_first::integer end) over so_far
            as rank_layers
    from begun
    -- sqlfluff knows no window without an order.
    window so_far as (rows between unbounded preceding and current row)  -- noqa: PRS
)

select
    launches.kernel_id,
    launches.name_id,
    launches.global_pid,
    launches.process_id,
    launches.device_id,
    launches.start_ns,
    launches.dur_ns,
    launches.rank,
    launches.ordinal,
    counted.blocks,
    case when counted.is_first then 'w13' else 'w2' end as gemm,
    counted.rank_layers - 1 as layer_ordinal
from counted
inner join staging.stg_moe_launches as launches on counted.kernel_id = launches.kernel_id;

comment on table staging.stg_moe_products is
'MoE kernels with the product of their layer and the layers that their rank has begun (layer_ordinal, from 0; -1 for a second product that the capture begins with). Grain: one launch. Key: kernel_id. Invariant: the rows of stg_moe_launches.';
