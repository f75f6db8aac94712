create table staging.stg_idle_gaps as
with windows as (
    select
        global_pid,
        device_id,
        min(start_ns) as first_ns,
        max(end_ns) as last_ns,
        min(place)::integer as device
    from intervals.placed_steps
    group by global_pid, device_id
),

streams as (
    select
        streams.stream,
        windows.device
    from staging.stg_streams as streams
    inner join windows
        on
            streams.global_pid is not distinct from windows.global_pid
            and streams.device_id = windows.device_id
),

-- Work, and steps after what starts at the same instant: the gap before a step's first kernel
-- belongs to the step before.
events as (
    select
        streams.device,
        work.start_ns,
        work.end_ns,
        work.end_ns as reached_ns,
        work.kernel_id,
        work.name_id,
        work.global_tid,
        work.call_end_ns,
        null as step_place
    from staging.stg_work as work
    inner join streams on work.stream = streams.stream
    union all
    select
        windows.device,
        steps.start_ns,
        9223372036854775807 as end_ns,
        null as reached_ns,
        null as kernel_id,
        null as name_id,
        null as global_tid,
        null as call_end_ns,
        steps.place as step_place
    from intervals.placed_steps as steps
    inner join windows
        on
            steps.global_pid is not distinct from windows.global_pid
            and steps.device_id = windows.device_id
),

-- Sorted once; windows without an order of their own then take the rows as they come
-- (docs/performance.md: nothing but projections and filters may stand between).
in_order as (
    select *
    from events
    -- Keys of at most 24 bytes are sorted three times as fast as longer ones.
    order by device, start_ns, end_ns
),

-- The numbers of devices are so far apart that no time of one reaches into the next.
apart as (
    select
        *,
        device::hugeint * 18446744073709551616 as zero
    from in_order
),

reached as (
    select
        *,
        max(zero + reached_ns) over so_far as reach
    from apart
    -- sqlfluff knows no window without an order.
    window so_far as (rows between unbounded preceding and current row)  -- noqa: PRS
),

ordered as (
    select
        *,
        -- Out of reach where the row before is another device's.
        try_cast(lag(reach) over () - zero as bigint) as free_ns,
        lag(zero + start_ns) over () > zero + start_ns as is_disordered
    from reached
),

-- Few rows, as a rule, to carry the step on to.
kept as (
    select *
    from ordered
    where
        case
            when is_disordered then error('rows came out of order')
            else step_place is not null or start_ns > free_ns
        end
),

stepped as (
    select
        *,
        max(step_place) over so_far as begun
    from kept
    -- sqlfluff knows no window without an order.
    window so_far as (rows between unbounded preceding and current row)  -- noqa: PRS
),

idle as (
    select
        *,
        row_number() over () as place,
        -- From here on the launch was done, and the GPU took its time.
        greatest(least(call_end_ns, start_ns), free_ns) as launched_ns
    from stepped
    where step_place is null
),

gaps as materialized (
    select
        idle.begun as step_place,
        idle.place,
        idle.free_ns as start_ns,
        idle.start_ns as end_ns,
        idle.kernel_id,
        idle.name_id,
        idle.global_tid,
        idle.launched_ns,
        idle.launched_ns - idle.free_ns as late_ns
    from idle
    inner join windows
        on
            idle.device = windows.device
            and idle.free_ns >= windows.first_ns
            and idle.start_ns <= windows.last_ns
),

-- What the thread did from the start of the gap until the launch was done: both instants stand
-- among the calls of the thread. A launch that was done before needs neither.
late as (
    select
        place,
        global_tid,
        start_ns,
        launched_ns
    from gaps
    where late_ns > 0 and global_tid is not null
),

threads as (
    select
        global_tid,
        (row_number() over (order by global_tid))::integer as thread
    from late
    group by global_tid
),

instants as (
    select
        global_tid,
        start_ns as at_ns,
        end_ns,
        is_blocking,
        null as place
    from staging.stg_outermost_calls
    union all
    -- The start of a gap counts against it.
    select
        global_tid,
        start_ns as at_ns,
        null as end_ns,
        null as is_blocking,
        -place as place
    from late
    union all
    select
        global_tid,
        launched_ns as at_ns,
        null as end_ns,
        null as is_blocking,
        place
    from late
),

by_thread as (
    select
        threads.thread,
        instants.at_ns,
        instants.end_ns,
        instants.is_blocking,
        instants.place
    from instants
    inner join threads on instants.global_tid = threads.global_tid
    order by threads.thread, instants.at_ns
),

-- The numbers of threads are so far apart that no time of one reaches into the next.
moments as (
    select
        place,
        is_blocking,
        end_ns - at_ns as dur_ns,
        thread::hugeint * 18446744073709551616 + at_ns as moment
    from by_thread
),

counted as (
    select
        place,
        moment,
        lag(moment) over () > moment as is_disordered,
        sum(dur_ns) over so_far as called_ns,
        sum(case when is_blocking then dur_ns end) over so_far as waited_ns,
        max(moment + dur_ns) over so_far as reach,
        max(case when is_blocking then moment + dur_ns end) over so_far as blocked_reach
    from moments
    -- sqlfluff knows no window without an order.
    window so_far as (rows between unbounded preceding and current row)  -- noqa: PRS
),

-- Of the call that an instant lies in, the part before it alone counts.
called as (
    select
        abs(place) as place,
        sum(sign(place) * (coalesce(called_ns, 0) - greatest(reach - moment, 0)))::bigint
            as in_calls_ns,
        sum(sign(place) * (coalesce(waited_ns, 0) - greatest(blocked_reach - moment, 0)))::bigint
            as blocked_ns
    from counted
    where case when is_disordered then error('rows came out of order') else place is not null end
    group by abs(place)
)

select
    gaps.step_place::integer as step_place,
    gaps.start_ns,
    gaps.end_ns,
    gaps.kernel_id,
    gaps.name_id,
    gaps.global_tid is not null as is_launched,
    gaps.late_ns,
    called.in_calls_ns,
    called.blocked_ns
from gaps
left join called on gaps.place = called.place;

comment on table staging.stg_idle_gaps is
'Time in which a GPU ran nothing, with the step that it lies in (intervals.placed_steps), whether the call that launched the next work was recorded (is_launched), how long its launch was not done (late_ns), and how long the thread that launched it was in calls and in blocking ones until then (NULL for a launch that was done before). Names of steps and classes are left to idle_gaps. Grain: one gap between work on a device. Key: (step_place, start_ns).';
