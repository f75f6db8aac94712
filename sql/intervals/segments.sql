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
        activities.place,
        greatest(activities.start_ns, windows.first_ns) as start_ns,
        least(activities.end_ns, windows.last_ns) as end_ns
    from intervals.activities as activities
    inner join windows
        on
            activities.global_pid is not distinct from windows.global_pid
            and activities.device_id = windows.device_id
),

-- How many of each kind are open is kept in ten bits of one number, so that one running sum
-- serves them all; a GPU runs at most 128 kernels at once.
edges as (
    select
        global_pid,
        device_id,
        start_ns as at_ns,
        1::bigint << (10 * place) as opened,
        null::bigint as step_start_ns
    from clipped
    where start_ns < end_ns
    union all
    select
        global_pid,
        device_id,
        end_ns as at_ns,
        -(1::bigint << (10 * place)) as opened,
        null::bigint as step_start_ns
    from clipped
    where start_ns < end_ns
    union all
    -- A step's edge cuts whatever runs across it.
    select
        global_pid,
        device_id,
        start_ns as at_ns,
        0 as opened,
        start_ns as step_start_ns
    from main.device_steps
    union all
    select
        global_pid,
        device_id,
        last_ns as at_ns,
        0 as opened,
        null::bigint as step_start_ns
    from windows
),

running as (
    select
        global_pid,
        device_id,
        at_ns as start_ns,
        lead(at_ns) over onward as end_ns,
        (sum(opened) over onward)::bigint as open,
        max(step_start_ns) over onward as step_start_ns
    from edges
    window onward as (
        partition by global_pid, device_id
        order by at_ns
        rows between unbounded preceding and current row
    )
)

select
    global_pid,
    device_id,
    start_ns,
    end_ns,
    step_start_ns,
    (open & 1023) > 0 as has_moe,
    ((open >> 10) & 1023) > 0 as has_compute,
    ((open >> 20) & 1023) > 0 as has_wait,
    ((open >> 30) & 1023) > 0 as has_transfer,
    ((open >> 40) & 1023) > 0 as has_unmatched,
    ((open >> 50) & 1023) > 0 as has_copy
from running
-- Of edges at one instant the last alone has the whole sum, and the next instant after it.
where start_ns < end_ns;

comment on view intervals.segments is
'The time of each GPU in stretches within which nothing starts or ends, with what runs in them. Grain: one stretch of one device of one process. Key: (global_pid, device_id, start_ns). Invariant: the stretches of a device touch one another and cover its window (device_steps).';
