create view staging.stg_moe_steps as
with calls as (
    select
        launches.kernel_id,
        calls.global_tid,
        calls.start_ns as call_ns
    from staging.stg_moe_launches as launches
    inner join staging.stg_api_calls as calls
        on
            launches.global_pid = calls.global_pid
            and launches.correlation_id = calls.correlation_id
)

-- A kernel belongs to the step whose range its API call falls into. Kernels that a CUDA graph
-- replays share the call that launched the graph.
select
    calls.kernel_id,
    steps.step,
    steps.phase
from calls
asof inner join main.steps
    on calls.global_tid = steps.global_tid and calls.call_ns >= steps.start_ns
where calls.call_ns < steps.end_ns;

comment on view staging.stg_moe_steps is
'The step of each MoE kernel that was launched inside a step''s range. Grain: one launch. Key: kernel_id.';
