create view staging.stg_stepping_processes as
select
    global_pid,
    count(*) as calls
from staging.stg_step_calls
group by global_pid;

comment on view staging.stg_stepping_processes is
'Processes that made CUDA API calls inside ranges of steps; no rows where ranges tell no step. Grain: one process. Key: global_pid.';
