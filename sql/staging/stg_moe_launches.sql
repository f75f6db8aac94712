create table staging.stg_moe_launches as
with ranks as (
    select
        global_pid,
        any_value(process_id) as process_id,
        device_id,
        (row_number() over in_order)::integer - 1 as rank,
        (sum(count(*)) over in_order)::bigint - count(*) as before
    from main.moe_kernels
    group by global_pid, device_id
    window in_order as (order by global_pid >> 48, device_id, global_pid)
),

-- Sorted once; windows without an order of their own then take the rows as they come
-- (docs/performance.md: nothing but projections and filters may stand between).
in_order as (
    select
        ranks.rank,
        events.kernel_id,
        events.name_id,
        events.start_ns,
        events.dur_ns
    from main.moe_kernels as events
    inner join ranks
        on
            events.global_pid is not distinct from ranks.global_pid
            and events.device_id = ranks.device_id
    order by ranks.rank, events.start_ns, events.dur_ns
),

numbered as (
    select
        *,
        row_number() over () as place,
        lag(rank) over () > rank
        or (lag(rank) over () = rank and lag(start_ns) over () > start_ns) as is_disordered
    from in_order
)

select
    launches.kernel_id,
    launches.name_id,
    ranks.global_pid,
    ranks.process_id,
    ranks.device_id,
    launches.start_ns,
    launches.dur_ns,
    launches.rank::bigint as rank,
    launches.place - ranks.before - 1 as ordinal
from numbered as launches
inner join ranks on launches.rank = ranks.rank
where case when launches.is_disordered then error('rows came out of order') else true end;

comment on table staging.stg_moe_launches is
'MoE kernels with their place in the order of their rank. Grain: one launch. Key: kernel_id. Invariant: the rows of moe_kernels.';
