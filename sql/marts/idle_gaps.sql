create table main.idle_gaps as
-- DuckDB 1.5 ends the process over an ASOF join of a join to a bare table: tables get a name first.
with host_calls as (
    select *
    from staging.stg_host_calls
),

steps as (
    select *
    from main.device_steps
),

windows as (
    select
        global_pid,
        device_id,
        min(start_ns) as first_ns,
        max(end_ns) as last_ns
    from main.device_steps
    group by global_pid, device_id
),

ordered as (
    select
        *,
        max(end_ns) over (
            partition by global_pid, device_id
            order by start_ns, end_ns
            rows between unbounded preceding and 1 preceding
        ) as free_ns
    from main.gpu_work
),

gaps as (
    select
        ordered.global_pid,
        ordered.process_id,
        ordered.device_id,
        ordered.free_ns as start_ns,
        ordered.start_ns as end_ns,
        ordered.start_ns - ordered.free_ns as dur_ns,
        ordered.kernel_id,
        ordered.class,
        ordered.global_tid,
        -- From here on the launch was done, and the GPU took its time.
        greatest(least(ordered.call_end_ns, ordered.start_ns), ordered.free_ns) as launched_ns
    from ordered
    inner join windows
        on
            ordered.global_pid is not distinct from windows.global_pid
            and ordered.device_id = windows.device_id
    where
        ordered.start_ns > ordered.free_ns
        and ordered.free_ns >= windows.first_ns
        and ordered.start_ns <= windows.last_ns
),

-- The thread's time in calls up to each end of the late part.
begun as (
    select
        gaps.*,
        calls.calls_before_ns + least(gaps.start_ns, calls.end_ns) - calls.start_ns
            as calls_until_start_ns,
        calls.blocked_before_ns
        + case
            when calls.is_blocking then least(gaps.start_ns, calls.end_ns) - calls.start_ns
            else 0
        end as blocked_until_start_ns
    from gaps
    asof left join host_calls as calls
        on gaps.global_tid = calls.global_tid and gaps.start_ns >= calls.start_ns
),

measured as (
    select
        begun.global_pid,
        begun.process_id,
        begun.device_id,
        begun.start_ns,
        begun.end_ns,
        begun.dur_ns,
        begun.kernel_id,
        begun.class,
        begun.global_tid,
        begun.launched_ns - begun.start_ns as late_ns,
        calls.blocked_before_ns
        + case
            when calls.is_blocking then least(begun.launched_ns, calls.end_ns) - calls.start_ns
            else 0
        end
        - coalesce(begun.blocked_until_start_ns, 0) as blocked_ns,
        calls.calls_before_ns + least(begun.launched_ns, calls.end_ns) - calls.start_ns
        - coalesce(begun.calls_until_start_ns, 0) as in_calls_ns
    from begun
    asof left join host_calls as calls
        on begun.global_tid = calls.global_tid and begun.launched_ns >= calls.start_ns
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
    measured.class,
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
        and measured.start_ns >= steps.start_ns;

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
