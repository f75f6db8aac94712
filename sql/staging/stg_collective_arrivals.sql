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
        ) as series
    from counted
    inner join ranks
        on
            counted.global_pid is not distinct from ranks.global_pid
            and counted.device_id = ranks.device_id
),

ordered as (
    select
        kernel_id,
        global_pid,
        process_id,
        device_id,
        name_id,
        nccl_communicator,
        start_ns,
        end_ns,
        dur_ns,
        row_number() over (
            partition by name_id, nccl_communicator, global_pid, device_id
            order by start_ns, end_ns
        ) - 1 as ordinal
    from events
)

select
    ordered.*,
    sized.rank,
    sized.series,
    sized.launches,
    -- Some 64 of each series are enough to learn which ranks meet and how their clocks differ.
    ordered.ordinal % greatest(sized.launches // 64, 1) = 0 as is_sampled
from ordered
inner join sized
    on
        ordered.name_id = sized.name_id
        and ordered.nccl_communicator is not distinct from sized.nccl_communicator
        and ordered.global_pid is not distinct from sized.global_pid
        and ordered.device_id = sized.device_id;

comment on table staging.stg_collective_arrivals is
'Communication kernels with their place in their series: the rank''s kernels of that name and, where NCCL''s ranges tell it, that communicator. Grain: one kernel execution on one GPU. Key: kernel_id.';
