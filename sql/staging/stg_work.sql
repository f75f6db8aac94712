-- in parts of staging.stg_call_parts
create table staging.stg_work as
with work as (
    select
        events.kernel_id,
        events.global_pid,
        events.device_id,
        events.context_id,
        events.stream_id,
        events.correlation_id,
        names.name_id,
        events.start_ns,
        events.end_ns
    from staging.stg_kernels as events
    inner join staging.stg_name_ids as names on events.string_id = names.string_id
    union all
    select
        null as kernel_id,
        global_pid,
        device_id,
        context_id,
        stream_id,
        correlation_id,
        null as name_id,
        start_ns,
        end_ns
    from staging.stg_copies
)

select
    work.kernel_id,
    work.name_id,
    streams.stream,
    work.start_ns,
    work.end_ns,
    calls.global_tid,
    calls.start_ns as call_start_ns,
    calls.end_ns as call_end_ns,
    calls.step_place
from work
inner join staging.stg_streams as streams
    on
        work.device_id = streams.device_id
        and work.global_pid is not distinct from streams.global_pid
        and work.context_id is not distinct from streams.context_id
        and work.stream_id is not distinct from streams.stream_id
left join staging.stg_api_calls as calls
    on
        work.global_pid = calls.global_pid
        and work.correlation_id = calls.correlation_id
        and calls.correlation_id between getvariable('low') and getvariable('high')
where
    work.correlation_id between getvariable('low') and getvariable('high')
    or (work.correlation_id is null and getvariable('low') is null);

comment on table staging.stg_work is
'Kernels and copies with their stream, the call that launched each, and the step in whose range that was (stg_numbered_steps). Their order on the stream and what follows from it are left to stg_measured_work: each column of ten million rows takes longer to keep than to sort by. Grain: one kernel or copy. Key: none.';
