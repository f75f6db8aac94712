create view intervals.segments as
with windows as (
    select
        global_pid,
        device_id,
        min(place)::integer as place,
        min(start_ns) as first_ns,
        max(end_ns) as last_ns
    from intervals.placed_steps
    group by global_pid, device_id
),

-- A device's window is that of its kernels: copies before the first and after the last are cut.
clipped as (
    select
        windows.place as device_place,
        1::bigint << (10 * activities.place) as opened,
        greatest(activities.start_ns, windows.first_ns) as start_ns,
        least(activities.end_ns, windows.last_ns) as end_ns
    from intervals.activities as activities
    inner join windows
        on
            activities.global_pid is not distinct from windows.global_pid
            and activities.device_id = windows.device_id
),

-- How many of each kind are open is kept in ten bits of one number, and how many steps have begun
-- above them, so that one running sum serves all; a GPU runs at most 128 kernels at once.
edges as (
    select
        clipped.device_place,
        case when signs.sign = 1 then clipped.start_ns else clipped.end_ns end as at_ns,
        signs.sign * clipped.opened as change
    from clipped
    -- Not two queries of the rows, which would be held whole to be read twice.
    cross join (values (1), (-1)) as signs (sign)
    where clipped.start_ns < clipped.end_ns
    union all
    -- A step's edge cuts whatever runs across it.
    select
        windows.place as device_place,
        steps.start_ns as at_ns,
        1::bigint << 60 as change
    from intervals.placed_steps as steps
    inner join windows
        on
            steps.global_pid is not distinct from windows.global_pid
            and steps.device_id = windows.device_id
    union all
    select
        place as device_place,
        last_ns as at_ns,
        0 as change
    from windows
),

-- Sorted once; windows without an order of their own then take the rows as they come
-- (docs/performance.md: nothing but projections and filters may stand between).
in_order as (
    select *
    from edges
    order by device_place, at_ns
),

running as (
    select
        at_ns as start_ns,
        -- At the end of a device nothing is open, and its steps have begun: one sum for all.
        case when lead(device_place) over () = device_place then lead(at_ns) over () end as end_ns,
        lead(device_place) over () < device_place as is_disordered,
        sum(change) over so_far as changed
    from in_order
    -- sqlfluff knows no window without an order.
    window so_far as (rows between unbounded preceding and current row)  -- noqa: PRS
),

-- Numbers of 128 bits take several times as long: two of 64 each from here on.
told as (
    select
        start_ns,
        end_ns,
        is_disordered,
        (changed >> 60)::bigint as place,
        (changed & 1152921504606846975)::bigint as open
    from running
)

select
    place,
    start_ns,
    end_ns,
    open
from told
-- Of edges at one instant the last alone has the whole sum, and the next instant after it.
where
    case
        when is_disordered or end_ns < start_ns then error('rows came out of order')
        -- One more of a kind that has 1,023 open would carry into the next kind's bits.
        when
            xor(open + 1127000493261825, xor(open, 1127000493261825)) & 1154048505100108800 > 0
            then error('more than 1,022 kernels or copies overlap on one GPU; export again')
        else start_ns < end_ns
    end;

comment on view intervals.segments is
'The time of each GPU in stretches within which nothing starts or ends, with the step (place) that they lie in and how many of each kind of intervals.activities run, ten bits each (open); an error where a kind has more than 1,022 at once. Grain: one stretch of one device of one process. Key: (place, start_ns). Invariant: the stretches of a device touch one another and cover its window (device_steps).';
