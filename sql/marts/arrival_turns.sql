create view main.arrival_turns as
with agreed as (
    select coalesce(max(residual_ns), 0) as residual_ns
    from nsysmoe.clock_residual
),

-- Sorted once; windows without an order of their own then take the rows as they come
-- (docs/performance.md: nothing but projections and filters may stand between).
in_order as (
    select
        events.communicator,
        events.global_pid,
        events.process_id,
        events.device_id,
        events.start_ns
    from main.last_arrivals as events
    cross join agreed
    where events.margin_ns > agreed.residual_ns
    order by events.communicator, events.start_ns, events.device_id, events.global_pid
),

followed as (
    select
        *,
        lag(communicator) over () as communicator_before,
        lag(global_pid) over () as global_pid_before,
        lag(device_id) over () as device_id_before,
        lag(start_ns) over () as start_ns_before
    from in_order
),

switched as (
    select
        *,
        case
            when
                communicator_before > communicator
                or (communicator_before = communicator and start_ns_before > start_ns)
                then error('rows came out of order')
            else
                communicator_before = communicator
                and (
                    device_id_before != device_id
                    or global_pid_before is distinct from global_pid
                )
        end as is_switch
    from followed
)

select
    communicator,
    global_pid,
    process_id,
    device_id,
    count(*) as meetings,
    count(*) filter (where is_switch) as switches
from switched
group by communicator, global_pid, process_id, device_id;

comment on view main.arrival_turns is
'How often each rank was the last to arrive, and how often it took over from another, in meetings that the clocks can decide: those whose margin is above what an analysis found them to agree to, above 0 in a query of your own. Grain: one rank of one communicator. Key: (communicator, global_pid, device_id). Invariant: meetings add up to the rows of last_arrivals with such a margin.';
comment on column main.arrival_turns.communicator is 'Number of the ranks that meet, from 0';
comment on column main.arrival_turns.global_pid is 'Process as nsys serialises it (hardware, VM, pid); NULL where the export has none';
comment on column main.arrival_turns.process_id is 'Process id on its host, or in its container';
comment on column main.arrival_turns.device_id is 'CUDA ordinal of the GPU, as this process counts';
comment on column main.arrival_turns.meetings is 'Meetings for which it came last';
comment on column main.arrival_turns.switches is 'Those of them before which another rank had been the last of the communicator';
