create view staging.stg_rank_periods as
with layers as (
    select
        rank,
        global_pid,
        device_id,
        start_ns,
        layer_ordinal + 1 as begun
    from staging.stg_moe_products
    where gemm = 'w13'
),

ranks as (
    select
        rank,
        any_value(global_pid) as global_pid,
        any_value(device_id) as device_id,
        count(*) as layers
    from layers
    group by rank
),

-- A kernel that runs once a step (an embedding, a sampler) runs far less often than layers do.
rare as (
    select
        ranks.rank,
        names.name_id,
        count(*) as launches,
        min(names.start_ns) as first_ns,
        max(names.start_ns) as last_ns
    from main.kernels as names
    inner join ranks
        on
            names.global_pid is not distinct from ranks.global_pid
            and names.device_id = ranks.device_id
    where names.class != 'moe_gemm'
    group by ranks.rank, names.name_id, ranks.layers
    having count(*) > 2 and count(*) * 2 <= ranks.layers
),

ends as (
    select
        rank,
        name_id,
        launches,
        unnest([first_ns, last_ns]) as at_ns
    from rare
),

spanned as (
    select
        ends.rank,
        ends.name_id,
        ends.launches - 1 as intervals,
        max(coalesce(layers.begun, 0)) - min(coalesce(layers.begun, 0)) as layers
    from ends
    asof left join layers
        on ends.rank = layers.rank and ends.at_ns >= layers.start_ns
    group by ends.rank, ends.name_id, ends.launches
),

-- Only where the first and the last are so many layers apart can each be as far from the next:
-- most kernels need no closer look.
candidates as (
    select
        rank,
        name_id
    from spanned
    where layers > intervals and layers % intervals = 0
),

occurrences as (
    select
        ranks.rank,
        events.name_id,
        events.start_ns
    from main.kernels as events
    inner join ranks
        on
            events.global_pid is not distinct from ranks.global_pid
            and events.device_id = ranks.device_id
    inner join candidates
        on ranks.rank = candidates.rank and events.name_id = candidates.name_id
),

counted as (
    select
        occurrences.rank,
        occurrences.name_id,
        coalesce(layers.begun, 0) as begun,
        coalesce(layers.begun, 0) - lag(coalesce(layers.begun, 0)) over (
            partition by occurrences.rank, occurrences.name_id
            order by occurrences.start_ns
        ) as since
    from occurrences
    asof left join layers
        on occurrences.rank = layers.rank and occurrences.start_ns >= layers.start_ns
),

regular as (
    select
        rank,
        min(since) as layers,
        min(begun) % min(since) as first_layers
    from counted
    group by rank, name_id
    having min(since) = max(since) and min(since) > 1
),

voted as (
    select
        rank,
        layers,
        first_layers,
        row_number() over (
            partition by rank
            order by count(*) desc, layers, first_layers asc
        ) as place
    from regular
    group by rank, layers, first_layers
)

select
    ranks.global_pid,
    ranks.device_id,
    voted.layers,
    voted.first_layers
from voted
inner join ranks on voted.rank = ranks.rank
where voted.place = 1;

comment on view staging.stg_rank_periods is
'How many layers a step has, from the kernels that run once in as many: most of those that recur regularly on a rank agree on it. first_layers: layers of the step that the capture began in the middle of. Grain: one process and device. Key: (global_pid, device_id).';
