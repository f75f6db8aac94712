create view intervals.segments as
with windows as (
    select
        global_pid,
        device_id,
        min(start_ns) as first_ns,
        max(end_ns) as last_ns
    from main.device_steps
    group by global_pid, device_id
),

-- A device's window is that of its kernels: copies before the first and after the last are cut.
clipped as (
    select
        activities.global_pid,
        activities.device_id,
        activities.kind,
        greatest(activities.start_ns, windows.first_ns) as start_ns,
        least(activities.end_ns, windows.last_ns) as end_ns
    from intervals.activities as activities
    inner join windows
        on
            activities.global_pid is not distinct from windows.global_pid
            and activities.device_id = windows.device_id
),

edges as (
    select
        global_pid,
        device_id,
        kind,
        start_ns as at_ns,
        1 as opened
    from clipped
    where start_ns < end_ns
    union all
    select
        global_pid,
        device_id,
        kind,
        end_ns as at_ns,
        -1 as opened
    from clipped
    where start_ns < end_ns
    union all
    -- A step's edge cuts whatever runs across it.
    select
        global_pid,
        device_id,
        'step' as kind,
        start_ns as at_ns,
        0 as opened
    from main.device_steps
),

instants as (
    select
        global_pid,
        device_id,
        at_ns,
        coalesce(sum(opened) filter (where kind = 'moe'), 0) as moe,
        coalesce(sum(opened) filter (where kind = 'compute'), 0) as compute,
        coalesce(sum(opened) filter (where kind = 'wait'), 0) as wait,
        coalesce(sum(opened) filter (where kind = 'transfer'), 0) as transfer,
        coalesce(sum(opened) filter (where kind = 'unmatched'), 0) as unmatched,
        coalesce(sum(opened) filter (where kind = 'copy'), 0) as copy
    from edges
    group by global_pid, device_id, at_ns
),

running as (
    select
        global_pid,
        device_id,
        at_ns as start_ns,
        lead(at_ns) over onward as end_ns,
        sum(moe) over onward > 0 as has_moe,
        sum(compute) over onward > 0 as has_compute,
        sum(wait) over onward > 0 as has_wait,
        sum(transfer) over onward > 0 as has_transfer,
        sum(unmatched) over onward > 0 as has_unmatched,
        sum(copy) over onward > 0 as has_copy
    from instants
    window onward as (partition by global_pid, device_id order by at_ns)
)

select *
from running
where end_ns is not null;

comment on view intervals.segments is
'The time of each GPU in stretches within which nothing starts or ends, with what runs in them. Grain: one stretch of one device of one process. Key: (global_pid, device_id, start_ns). Invariant: the stretches of a device touch one another and cover its window (device_steps).';
