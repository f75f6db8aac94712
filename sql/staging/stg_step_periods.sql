create view staging.stg_step_periods as
with ranks as (
    select
        rank,
        any_value(global_pid) as global_pid,
        any_value(device_id) as device_id
    from staging.stg_moe_launches
    group by rank
),

elected as (
    select
        ranks.rank,
        periods.layers,
        periods.first_layers,
        min(periods.layers) over () = max(periods.layers) over () as is_agreed
    from staging.stg_rank_periods as periods
    inner join ranks
        on
            periods.global_pid is not distinct from ranks.global_pid
            and periods.device_id = ranks.device_id
)

select
    rank,
    layers,
    first_layers
from elected
where is_agreed;

comment on view staging.stg_step_periods is
'How many layers a step has (stg_rank_periods); no rows where ranks do not agree. Grain: one rank. Key: rank.';
