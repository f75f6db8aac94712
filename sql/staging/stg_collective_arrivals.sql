create table staging.stg_collective_arrivals as
with ranks as (
    select
        global_pid,
        device_id,
        row_number() over (order by global_pid >> 48, device_id, global_pid) - 1 as rank
    from staging.stg_collective_events
    group by global_pid, device_id
),

-- Where some ranks' kernels have a name and others' do not, their orders cannot be compared.
sure as (
    select name_id
    from staging.stg_collective_events
    where not is_replayed
    group by name_id
    having count(*) = count(nccl_communicator)
),

events as (
    select
        events.kernel_id,
        events.global_pid,
        events.process_id,
        events.device_id,
        events.name_id,
        case when sure.name_id is not null then events.nccl_communicator end as nccl_communicator,
        events.start_ns,
        events.end_ns,
        events.dur_ns
    from staging.stg_collective_events as events
    left join sure on events.name_id = sure.name_id
),

counted as (
    select
        name_id,
        nccl_communicator,
        global_pid,
        any_value(process_id) as process_id,
        device_id,
        count(*) as launches
    from events
    group by name_id, nccl_communicator, global_pid, device_id
),

sized as (
    select
        counted.*,
        ranks.rank,
        dense_rank() over (
            order by counted.name_id, counted.nccl_communicator nulls first
        ) as series,
        (row_number() over in_order)::integer as place,
        (sum(counted.launches) over in_order)::bigint - counted.launches as before
    from counted
    inner join ranks
        on
            counted.global_pid is not distinct from ranks.global_pid
            and counted.device_id = ranks.device_id
    window in_order as (
        order by counted.name_id, counted.nccl_communicator nulls first, ranks.rank
    )
),

-- Sorted once; windows without an order of their own then take the rows as they come
-- (docs/performance.md: nothing but projections and filters may stand between).
in_order as (
    select
        sized.place,
        events.kernel_id,
        events.start_ns,
        events.end_ns,
        events.dur_ns
    from events
    inner join sized
        on
            events.name_id = sized.name_id
            and events.nccl_communicator is not distinct from sized.nccl_communicator
            and events.global_pid is not distinct from sized.global_pid
            and events.device_id = sized.device_id
    -- Keys of at most 24 bytes are sorted three times as fast as longer ones.
    order by sized.place, events.start_ns, events.end_ns
),

numbered as (
    select
        *,
        row_number() over () as number,
        lag(place) over () > place
        or (lag(place) over () = place and lag(start_ns) over () > start_ns) as is_disordered
    from in_order
),

ordered as (
    select
        numbered.kernel_id,
        sized.global_pid,
        sized.process_id,
        sized.device_id,
        sized.name_id,
        sized.nccl_communicator,
        numbered.start_ns,
        numbered.end_ns,
        numbered.dur_ns,
        numbered.number - sized.before - 1 as ordinal,
        sized.rank,
        sized.series,
        sized.launches
    from numbered
    inner join sized on numbered.place = sized.place
    where case when numbered.is_disordered then error('rows came out of order') else true end
)

select
    *,
    -- Some 64 of each series are enough to learn which ranks meet and how their clocks differ.
    ordinal % greatest(launches // 64, 1) = 0 as is_sampled
from ordered;

comment on table staging.stg_collective_arrivals is
'Communication kernels with their place in their series: the rank''s kernels of that name and, where NCCL''s ranges tell it, that communicator. Grain: one kernel execution on one GPU. Key: kernel_id.';
