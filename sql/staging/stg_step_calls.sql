create table staging.stg_step_calls as
select
    calls.global_pid,
    calls.correlation_id,
    steps.step,
    steps.phase
from staging.stg_api_calls as calls
asof inner join main.steps
    on calls.global_tid = steps.global_tid and calls.start_ns >= steps.start_ns
where calls.start_ns < steps.end_ns;

comment on table staging.stg_step_calls is
'CUDA API calls made inside a step''s range; the kernels of a replayed CUDA graph share the call that launched it. Grain: one correlation id of one process. Key: (global_pid, correlation_id).';
