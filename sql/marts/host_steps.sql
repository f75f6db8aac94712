create table main.host_steps as
with main_threads as (
    select
        global_tid,
        global_pid,
        process_id,
        device_id,
        first_launch_ns,
        last_launch_ns
    from main.launching_threads
    where is_main
),

-- The call that launched a step's first kernel cuts the thread's time.
launched as (
    select
        threads.global_tid,
        threads.device_id,
        steps.step,
        steps.phase,
        min(work.call_start_ns) as call_start_ns
    from main.device_steps as steps
    inner join staging.stg_streams as streams
        on
            steps.global_pid is not distinct from streams.global_pid
            and steps.device_id = streams.device_id
    inner join staging.stg_work as work
        on streams.stream = work.stream and steps.start_ns = work.start_ns
    inner join main_threads as threads
        on
            steps.global_pid is not distinct from threads.global_pid
            and steps.device_id = threads.device_id
    where work.kernel_id is not null and work.call_start_ns is not null
    group by
        threads.global_tid, threads.device_id, steps.step, steps.phase, steps.start_ns
),

-- As a query of its own: DuckDB 1.5 cannot plan an ASOF join of a join to a bare table.
known as (
    select
        global_tid,
        start_ns,
        end_ns
    from staging.stg_outermost_calls
),

-- A driver's call may lie inside one of the runtime: the outer one is not cut.
placed as (
    select
        launched.global_tid,
        launched.device_id,
        launched.step,
        launched.phase,
        case
            when calls.end_ns > launched.call_start_ns then calls.start_ns
            else launched.call_start_ns
        end as start_ns
    from launched
    asof left join known as calls
        on
            launched.global_tid = calls.global_tid
            and launched.call_start_ns >= calls.start_ns
),

-- Two steps that one CUDA graph launches begin with one call.
begun as (
    select
        global_tid,
        device_id,
        start_ns,
        min(step) as step,
        arg_min(phase, step) as phase
    from placed
    group by global_tid, device_id, start_ns
),

-- What is launched before the first step belongs to none.
opened as (
    select
        global_tid,
        device_id,
        start_ns,
        step,
        phase
    from begun
    union all
    select
        threads.global_tid,
        threads.device_id,
        threads.first_launch_ns as start_ns,
        null as step,
        null as phase
    from main_threads as threads
    left join begun
        on
            threads.global_tid = begun.global_tid
            and threads.device_id = begun.device_id
            and threads.first_launch_ns >= begun.start_ns
    where begun.start_ns is null
),

cut as (
    select
        threads.global_tid,
        threads.global_pid,
        threads.process_id,
        opened.device_id,
        opened.step,
        opened.phase,
        opened.start_ns,
        coalesce(
            lead(opened.start_ns) over (
                partition by opened.global_tid, opened.device_id
                order by opened.start_ns
            ),
            greatest(threads.last_launch_ns, opened.start_ns)
        ) as end_ns
    from opened
    inner join main_threads as threads
        on opened.global_tid = threads.global_tid and opened.device_id = threads.device_id
),

called as (
    select
        cut.global_tid,
        cut.device_id,
        cut.start_ns,
        calls.kind,
        -- The last step ends with its launch, which another call may hold.
        least(calls.end_ns, cut.end_ns) - calls.start_ns as dur_ns
    from staging.stg_host_calls as calls
    inner join main_threads as threads on calls.global_tid = threads.global_tid
    asof inner join cut
        on
            threads.global_tid = cut.global_tid
            and threads.device_id = cut.device_id
            and calls.start_ns >= cut.start_ns
    where calls.start_ns < cut.end_ns
),

summed as (
    select
        global_tid,
        device_id,
        start_ns,
        count(*) as calls,
        count(*) filter (where kind = 'launch') as launches,
        count(*) filter (where kind = 'graph_launch') as graph_launches,
        sum(dur_ns) as called_ns,
        sum(dur_ns) filter (where kind in ('launch', 'graph_launch')) as launching_ns,
        sum(dur_ns) filter (where kind = 'blocking') as blocked_ns
    from called
    group by global_tid, device_id, start_ns
)

select
    cut.global_tid,
    cut.global_pid,
    cut.process_id,
    cut.device_id,
    cut.step,
    cut.phase,
    cut.start_ns,
    cut.end_ns,
    cut.end_ns - cut.start_ns as wall_ns,
    coalesce(summed.calls, 0) as calls,
    coalesce(summed.launches, 0) as launches,
    coalesce(summed.graph_launches, 0) as graph_launches,
    coalesce(summed.launching_ns, 0)::bigint as launching_ns,
    (
        coalesce(summed.called_ns, 0)
        - coalesce(summed.launching_ns, 0)
        - coalesce(summed.blocked_ns, 0)
    )::bigint as calling_ns,
    coalesce(summed.blocked_ns, 0)::bigint as blocked_ns,
    (cut.end_ns - cut.start_ns - coalesce(summed.called_ns, 0))::bigint as outside_ns
from cut
left join summed
    on
        cut.global_tid = summed.global_tid
        and cut.device_id = summed.device_id
        and cut.start_ns = summed.start_ns;

comment on table main.host_steps is
'The time of each GPU''s launching thread, cut where the call that launches a step''s first kernel starts, and what the thread did. Grain: one step on one thread and device. Key: (global_tid, device_id, start_ns). Invariant: launching_ns + calling_ns + blocked_ns + outside_ns = wall_ns; the rows of a thread and device touch one another.';
comment on column main.host_steps.global_tid is 'Thread that launches most of the work on the GPU, as nsys serialises it';
comment on column main.host_steps.global_pid is 'Process as nsys serialises it (hardware, VM, pid)';
comment on column main.host_steps.process_id is 'Process id on its host, or in its container';
comment on column main.host_steps.device_id is 'CUDA ordinal of the GPU, as this process counts';
comment on column main.host_steps.step is 'Step (device_steps.step)';
comment on column main.host_steps.phase is 'Phase of the step; NULL where none is known';
comment on column main.host_steps.start_ns is 'Start of the call that launches the step''s first kernel, ns since the zero of the capture';
comment on column main.host_steps.end_ns is 'The same of the next step, or the end of the thread''s last launch, ns since the zero of the capture';
comment on column main.host_steps.wall_ns is 'Time from start to end, ns';
comment on column main.host_steps.calls is 'CUDA API calls of the thread that no other contains';
comment on column main.host_steps.launches is 'Of these, launches of one kernel';
comment on column main.host_steps.graph_launches is 'Of these, launches of a CUDA graph';
comment on column main.host_steps.launching_ns is 'Time in launches of kernels and graphs, ns';
comment on column main.host_steps.calling_ns is 'Time in other calls that do not wait for the GPU by purpose, ns';
comment on column main.host_steps.blocked_ns is 'Time in calls that wait for the GPU (synchronisation, copies that are not Async or go to pageable memory), ns';
comment on column main.host_steps.outside_ns is 'Time outside any CUDA call: Python, the scheduler, other processes on the core, ns';
