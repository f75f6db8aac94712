create table staging.stg_step_launches as
select
    threads.global_tid,
    threads.device_id,
    steps.step,
    steps.phase,
    min(work.call_start_ns) as call_start_ns
from main.device_steps as steps
inner join main.gpu_work as work
    on
        steps.global_pid is not distinct from work.global_pid
        and steps.device_id = work.device_id
        and steps.start_ns = work.start_ns
inner join main.launching_threads as threads
    on
        steps.global_pid is not distinct from threads.global_pid
        and steps.device_id = threads.device_id
where work.kernel_id is not null and work.call_start_ns is not null and threads.is_main
group by
    threads.global_tid, threads.device_id, steps.step, steps.phase, steps.start_ns;

comment on table staging.stg_step_launches is
'The call that launched the first kernel of each step on each GPU, and the thread that launches most of the work there. Grain: one step on one device. Key: (global_tid, device_id, call_start_ns, step). Kept, since DuckDB 1.5 cannot plan an ASOF join whose left side is this query.';
