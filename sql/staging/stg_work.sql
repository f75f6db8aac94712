-- in parts of staging.stg_call_parts
create table staging.stg_work as
select
    work.kernel_id,
    work.name_id,
    work.stream,
    work.position,
    work.start_ns,
    work.end_ns,
    work.previous_end_ns,
    calls.global_tid,
    calls.start_ns as call_start_ns,
    calls.end_ns as call_end_ns,
    calls.step_place
from staging.stg_stream_work as work
inner join staging.stg_streams as streams on work.stream = streams.stream
left join staging.stg_api_calls as calls
    on
        streams.global_pid = calls.global_pid
        and work.correlation_id = calls.correlation_id
        and calls.correlation_id between getvariable('low') and getvariable('high')
where
    work.correlation_id between getvariable('low') and getvariable('high')
    or (work.correlation_id is null and getvariable('low') is null);

comment on table staging.stg_work is
'Kernels and copies of each stream in order (position, from 1 over all streams), with the last end before each, the call that launched it, and the step in whose range that was (stg_numbered_steps). What follows from these by a sum, and which stream it is, are left to gpu_work: each column of ten million rows takes time to keep. Grain: one kernel or copy. Key: position.';
