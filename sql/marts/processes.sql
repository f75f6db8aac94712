create view main.processes as
with used as (
    select
        global_pid,
        process_id,
        count(*) as devices,
        sum(launches)::bigint as launches
    from main.devices
    group by global_pid, process_id
)

select
    used.global_pid,
    used.process_id,
    known.name,
    used.devices,
    used.launches
from used
left join staging.stg_processes as known on used.global_pid = known.global_pid;

comment on view main.processes is
'Processes that ran kernels. Grain: one process. Key: global_pid.';
comment on column main.processes.global_pid is 'Process as nsys serialises it (hardware, VM, pid)';
comment on column main.processes.process_id is 'Process id on its host, or in its container';
comment on column main.processes.name is 'Executable; NULL where the export does not tell';
comment on column main.processes.devices is 'Devices that the process ran kernels on';
comment on column main.processes.launches is 'Kernel executions of the process';
