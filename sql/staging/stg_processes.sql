create view staging.stg_processes as
select
    globalPid as global_pid,
    -- A process that called exec, or a pid that was given twice, has several rows.
    max(name) as name
from nsys.PROCESSES
group by globalPid;

comment on view staging.stg_processes is
'Processes of the host. Grain: one process. Key: global_pid.';
