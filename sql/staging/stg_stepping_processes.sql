create view staging.stg_stepping_processes as
select
    global_tid - (global_tid & 16777215) as global_pid,
    count(*) as calls
from staging.stg_calls
where step_place is not null and correlation_id is not null
group by all;

comment on view staging.stg_stepping_processes is
'Processes that made CUDA API calls inside ranges of steps; no rows where ranges tell no step. Grain: one process. Key: global_pid.';
