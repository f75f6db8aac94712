create table main.idle_gaps as
-- DuckDB 1.5 ends the process over an ASOF join of a join to a bare table: tables get a name first.
with steps as (
    select *
    from main.device_steps
),

-- The numbers of devices are so far apart that no time of one reaches into the next.
windows as (
    select
        global_pid,
        any_value(process_id) as process_id,
        device_id,
        min(start_ns) as first_ns,
        max(end_ns) as last_ns,
        row_number() over (order by global_pid, device_id) * 18446744073709551616::hugeint as zero
    from main.device_steps
    group by global_pid, device_id
),

-- Sorted once; windows without an order of their own then take the rows as they come
-- (docs/performance.md: nothing but projections and filters may stand between).
in_order as (
    select
        windows.zero,
        windows.first_ns,
        windows.last_ns,
        work.start_ns,
        work.end_ns,
        work.kernel_id,
        work.name_id,
        work.global_tid,
        work.call_end_ns
    from staging.stg_work as work
    inner join windows
        on
            work.global_pid is not distinct from windows.global_pid
            and work.device_id = windows.device_id
    order by windows.zero, work.start_ns, work.end_ns
),

reached as (
    select
        *,
        max(zero + end_ns) over so_far as reach
    from in_order
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

idle as (
    select
        *,
        row_number() over () as place,
        -- From here on the launch was done, and the GPU took its time.
        greatest(least(call_end_ns, start_ns), free_ns) as launched_ns
    from ordered
    where
        case
            when is_disordered then error('rows came out of order')
            else start_ns > free_ns and free_ns >= first_ns and start_ns <= last_ns
        end
),

gaps as materialized (
    select
        windows.global_pid,
        windows.process_id,
        windows.device_id,
        idle.place,
        idle.free_ns as start_ns,
        idle.start_ns as end_ns,
        idle.start_ns - idle.free_ns as dur_ns,
        idle.kernel_id,
        idle.name_id,
        idle.global_tid,
        idle.launched_ns,
        idle.launched_ns - idle.free_ns as late_ns
    from idle
    inner join windows on idle.zero = windows.zero
),

-- What the thread did from the start of the gap until the launch was done: both instants stand
-- among the calls of the thread. A launch that was done before needs neither.
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
    from gaps
    where late_ns > 0 and global_tid is not null
    union all
    select
        global_tid,
        launched_ns as at_ns,
        null as end_ns,
        null as is_blocking,
        place
    from gaps
    where late_ns > 0 and global_tid is not null
),

threads as (
    select
        global_tid,
        row_number() over (order by global_tid) * 18446744073709551616::hugeint as zero
    from staging.stg_outermost_calls
    group by global_tid
),

by_thread as (
    select
        threads.zero,
        instants.at_ns,
        instants.end_ns,
        instants.is_blocking,
        instants.place
    from instants
    inner join threads on instants.global_tid = threads.global_tid
    order by threads.zero, instants.at_ns
),

counted as (
    select
        place,
        zero + at_ns as moment,
        lag(zero + at_ns) over () > zero + at_ns as is_disordered,
        sum(end_ns - at_ns) over so_far as called_ns,
        sum(case when is_blocking then end_ns - at_ns end) over so_far as waited_ns,
        max(zero + end_ns) over so_far as reach,
        max(case when is_blocking then zero + end_ns end) over so_far as blocked_reach
    from by_thread
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
),

measured as (
    select
        gaps.*,
        called.in_calls_ns,
        called.blocked_ns
    from gaps
    left join called on gaps.place = called.place
)

select
    measured.global_pid,
    measured.process_id,
    measured.device_id,
    steps.step,
    steps.phase,
    measured.start_ns,
    measured.end_ns,
    measured.dur_ns,
    measured.kernel_id,
    case when measured.kernel_id is null then 'copy' else functions.class end as class,
    coalesce(measured.blocked_ns, 0) as blocked_ns,
    coalesce(measured.in_calls_ns - measured.blocked_ns, 0) as calling_ns,
    -- Before its first call a thread has been in none: clocks may start work before its launch.
    case
        when measured.global_tid is null then 0
        else measured.late_ns - coalesce(measured.in_calls_ns, 0)
    end as outside_ns,
    measured.dur_ns - measured.late_ns as launched_ns,
    case when measured.global_tid is null then measured.dur_ns else 0 end as unknown_ns
from measured
asof inner join steps
    on
        coalesce(measured.global_pid, -1) = coalesce(steps.global_pid, -1)
        and measured.device_id = steps.device_id
        and measured.start_ns >= steps.start_ns
left join nsysmoe.kernel_functions as functions on measured.name_id = functions.name_id;

comment on table main.idle_gaps is
'Time in which a GPU ran nothing, and what the thread that launched the next work did meanwhile. Grain: one gap between work on a device. Key: (global_pid, device_id, start_ns). Invariant: blocked_ns + calling_ns + outside_ns + launched_ns + unknown_ns = dur_ns; summed by step, dur_ns is device_time.idle_ns.';
comment on column main.idle_gaps.global_pid is 'Process as nsys serialises it (hardware, VM, pid)';
comment on column main.idle_gaps.process_id is 'Process id on its host, or in its container';
comment on column main.idle_gaps.device_id is 'CUDA ordinal of the GPU, as this process counts';
comment on column main.idle_gaps.step is 'Step in whose time the gap lies (device_steps.step)';
comment on column main.idle_gaps.phase is 'Phase of that step; NULL where none is known';
comment on column main.idle_gaps.start_ns is 'Start: everything before on the device has ended, ns since the zero of the capture';
comment on column main.idle_gaps.end_ns is 'End: the next work starts, ns since the zero of the capture';
comment on column main.idle_gaps.dur_ns is 'Duration, ns';
comment on column main.idle_gaps.kernel_id is 'The kernel that ends the gap; NULL for a copy';
comment on column main.idle_gaps.class is 'Class of what ends the gap; copy for copies and fills';
comment on column main.idle_gaps.blocked_ns is 'Launch not yet done, its thread inside a synchronising call, ns';
comment on column main.idle_gaps.calling_ns is 'Launch not yet done, its thread inside another CUDA call, ns';
comment on column main.idle_gaps.outside_ns is 'Launch not yet done, its thread outside any CUDA call, ns';
comment on column main.idle_gaps.launched_ns is 'Launched, and not yet started, ns';
comment on column main.idle_gaps.unknown_ns is 'The call that launched the next work was not recorded, ns';
