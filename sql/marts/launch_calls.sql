create view main.launch_calls as
with
-- As a query of its own: DuckDB 1.5 cannot plan an ASOF join of a join to a bare table.
steps as (
    select
        global_tid,
        global_pid,
        process_id,
        device_id,
        phase,
        start_ns,
        end_ns
    from main.host_steps
),

placed as (
    select
        steps.global_tid,
        steps.global_pid,
        steps.process_id,
        steps.device_id,
        steps.phase,
        calls.kind,
        calls.name_id,
        calls.end_ns - calls.start_ns as dur_ns
    from staging.stg_host_calls as calls
    inner join main.launching_threads as threads on calls.global_tid = threads.global_tid
    asof inner join steps
        on
            threads.global_tid = steps.global_tid
            and threads.device_id = steps.device_id
            and calls.start_ns >= steps.start_ns
    where calls.start_ns < steps.end_ns and calls.kind in ('launch', 'graph_launch')
),

launches as (
    select
        placed.global_tid,
        placed.global_pid,
        placed.process_id,
        placed.device_id,
        placed.phase,
        placed.kind,
        names.call,
        placed.dur_ns
    from placed
    inner join staging.stg_call_names as names on placed.name_id = names.name_id
)

select
    global_tid,
    global_pid,
    process_id,
    device_id,
    phase,
    kind,
    call,
    count(*) as calls,
    sum(dur_ns)::bigint as total_ns,
    avg(dur_ns) as mean_ns,
    median(dur_ns) as median_ns
from launches
group by
    grouping sets (
        (global_tid, global_pid, process_id, device_id, phase, kind, call),
        (global_tid, global_pid, process_id, device_id, phase, kind)
    );

comment on view main.launch_calls is
'How long a launch takes on the CPU, by API function. Grain: one API function, or all of its kind, in one phase on one thread and device. Key: (global_tid, device_id, phase, kind, call). Invariant: calls of all functions of a kind add up to the row whose call is NULL.';
comment on column main.launch_calls.global_tid is 'Thread that launches most of the work on the GPU, as nsys serialises it';
comment on column main.launch_calls.global_pid is 'Process as nsys serialises it (hardware, VM, pid)';
comment on column main.launch_calls.process_id is 'Process id on its host, or in its container';
comment on column main.launch_calls.device_id is 'CUDA ordinal of the GPU, as this process counts';
comment on column main.launch_calls.phase is 'Phase of the step in which it was called; NULL where none is known';
comment on column main.launch_calls.kind is 'launch (of one kernel) or graph_launch';
comment on column main.launch_calls.call is 'API function without its version; NULL for all of the kind';
comment on column main.launch_calls.calls is 'Calls that no other contains';
comment on column main.launch_calls.total_ns is 'Their time, ns';
comment on column main.launch_calls.mean_ns is 'Mean of their times, ns';
comment on column main.launch_calls.median_ns is 'Median of their times, ns';
