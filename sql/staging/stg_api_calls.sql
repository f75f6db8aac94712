create view staging.stg_api_calls as
select
    global_tid - (global_tid & 16777215) as global_pid,
    correlation_id,
    -- A runtime call and the driver call inside it may share the id: the outer one comes first.
    arg_min(global_tid, start_ns) as global_tid,
    min(start_ns) as start_ns,
    max(end_ns) as end_ns,
    nullif(arg_min(coalesce(step_place, 0), start_ns), 0) as step_place
from staging.stg_calls
where correlation_id is not null
group by all;

comment on view staging.stg_api_calls is
'CUDA API calls, with the step in whose range each was made (step_place). Grain: one correlation id of one process. Key: (global_pid, correlation_id).';
