create table main.host_gaps as
with calls as (
    select
        threads.global_tid,
        threads.global_pid,
        threads.process_id,
        threads.device_id,
        threads.is_main,
        calls.kind,
        calls.name_id,
        calls.start_ns,
        calls.end_ns,
        calls.free_ns,
        calls.place
    from staging.stg_host_calls as calls
    inner join main.launching_threads as threads on calls.global_tid = threads.global_tid
),

-- A load and the first uses that follow it without another call between are one.
chained as (
    select
        *,
        place - row_number() over (
            partition by global_tid, device_id
            order by place
        ) as chain
    from calls
    where kind in ('load', 'first_use')
),

loaded as (
    select
        global_tid,
        global_pid,
        process_id,
        device_id,
        is_main,
        -- The thread was outside any call before the load: it compiled, or read what was compiled.
        coalesce(
            arg_min(coalesce(free_ns, start_ns), start_ns) filter (where kind = 'load'),
            min(start_ns)
        ) as start_ns,
        max(end_ns) as end_ns,
        coalesce(
            arg_min(name_id, start_ns) filter (where kind = 'load'),
            arg_max(name_id, end_ns - start_ns)
        ) as name_id,
        count(*) filter (where kind = 'load') as loads,
        sum(end_ns - start_ns) filter (where kind in ('load', 'first_use'))::bigint as call_ns
    from chained
    group by global_tid, global_pid, process_id, device_id, is_main, chain
    -- Asking for an attribute takes a microsecond unless something is loaded for it.
    having loads > 0 or max(end_ns - start_ns) >= 1000000
),

-- The runtime loads what it needs inside calls of its own.
nested as (
    select
        threads.global_tid,
        threads.global_pid,
        threads.process_id,
        threads.device_id,
        threads.is_main,
        loads.start_ns,
        loads.end_ns,
        loads.call,
        1 as loads,
        loads.dur_ns as call_ns
    from staging.stg_code_loads as loads
    inner join main.launching_threads as threads on loads.global_tid = threads.global_tid
    left join staging.stg_host_calls as calls
        on loads.global_tid = calls.global_tid and loads.start_ns = calls.start_ns
    where calls.kind is distinct from 'load'
),

gaps as (
    select
        loaded.global_tid,
        loaded.global_pid,
        loaded.process_id,
        loaded.device_id,
        loaded.is_main,
        'code_load' as kind,
        loaded.start_ns,
        loaded.end_ns,
        names.call,
        loaded.loads,
        loaded.call_ns
    from loaded
    left join staging.stg_call_names as names on loaded.name_id = names.name_id
    union all
    select
        global_tid,
        global_pid,
        process_id,
        device_id,
        is_main,
        'code_load' as kind,
        start_ns,
        end_ns,
        regexp_replace(call, '_v[0-9]+(_pt[sd][sz])?$', '') as call,
        loads,
        call_ns
    from nested
    union all
    select
        calls.global_tid,
        calls.global_pid,
        calls.process_id,
        calls.device_id,
        calls.is_main,
        'quiet' as kind,
        calls.free_ns as start_ns,
        calls.start_ns as end_ns,
        names.call,
        0 as loads,
        0 as call_ns
    from calls
    left join staging.stg_call_names as names on calls.name_id = names.name_id
    where calls.kind <> 'load' and calls.start_ns - calls.free_ns >= 1000000
)

select
    global_tid,
    global_pid,
    process_id,
    device_id,
    is_main,
    kind,
    start_ns,
    end_ns,
    end_ns - start_ns as dur_ns,
    call,
    loads,
    call_ns
from gaps;

comment on table main.host_gaps is
'Where a launching thread launched nothing: it loaded compiled code, or made no CUDA call for 1 ms or longer. Grain: one gap of one thread, for each device that it launches on. Key: (global_tid, device_id, kind, start_ns, end_ns). Invariant: quiet gaps of a thread do not overlap, and hold no call.';
comment on column main.host_gaps.global_tid is 'Thread, as nsys serialises it';
comment on column main.host_gaps.global_pid is 'Process as nsys serialises it (hardware, VM, pid)';
comment on column main.host_gaps.process_id is 'Process id on its host, or in its container';
comment on column main.host_gaps.device_id is 'CUDA ordinal of the GPU, as this process counts';
comment on column main.host_gaps.is_main is 'Whether the thread launches most of the work on that GPU';
comment on column main.host_gaps.kind is 'code_load (the time without a call before a load, the load, and first uses of functions right after it; a load inside another call alone), or quiet';
comment on column main.host_gaps.start_ns is 'Start, ns since the zero of the capture';
comment on column main.host_gaps.end_ns is 'End, ns since the zero of the capture: the call that ends it starts (quiet), or loading has ended (code_load)';
comment on column main.host_gaps.dur_ns is 'Duration, ns';
comment on column main.host_gaps.call is 'Name of the call that ended it, without its version: the first load of code_load';
comment on column main.host_gaps.loads is 'Loads in it; 0 for a first use without a load, and for quiet';
comment on column main.host_gaps.call_ns is 'Part of it inside calls, ns';
