create view staging.stg_api_calls as
with calls as not materialized (
    select
        global_tid - (global_tid & 16777215) as global_pid,
        correlation_id,
        global_tid,
        start_ns,
        end_ns,
        step_place
    from staging.stg_calls
    where correlation_id is not null and global_tid is not null
),

-- Nearly all ids stand for one call, which is then taken as it is.
lone as (
    select calls.*
    from calls
    anti join staging.stg_crowded_calls as crowded
        on calls.global_pid = crowded.global_pid and calls.correlation_id >> 5 = crowded.block
),

shared as (
    select
        calls.global_pid,
        calls.correlation_id,
        -- A runtime call and the driver call inside it may share the id: the outer one comes first.
        arg_min(calls.global_tid, calls.start_ns) as global_tid,
        min(calls.start_ns) as start_ns,
        max(calls.end_ns) as end_ns,
        nullif(arg_min(coalesce(calls.step_place, 0), calls.start_ns), 0) as step_place
    from calls
    inner join staging.stg_crowded_calls as crowded
        on calls.global_pid = crowded.global_pid and calls.correlation_id >> 5 = crowded.block
    group by calls.global_pid, calls.correlation_id
)

select
    global_pid,
    correlation_id,
    global_tid,
    start_ns,
    end_ns,
    step_place
from lone
union all
select
    global_pid,
    correlation_id,
    global_tid,
    start_ns,
    end_ns,
    step_place
from shared;

comment on view staging.stg_api_calls is
'CUDA API calls, with the step in whose range each was made (step_place). Grain: one correlation id of one process. Key: (global_pid, correlation_id).';
