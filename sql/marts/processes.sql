create view main.processes as
select
    used.global_pid,
    used.process_id,
    any_value(known.name) as name,
    count(distinct used.device_id) as devices,
    sum(used.launches)::bigint as launches
from main.devices as used
left join nsys.PROCESSES as known on used.global_pid = known.globalPid
group by used.global_pid, used.process_id;

comment on view main.processes is
'Processes that ran kernels. Grain: one process. Key: global_pid.';
comment on column main.processes.global_pid is 'Process as nsys serialises it (hardware, VM, pid)';
comment on column main.processes.process_id is 'Process id on its host, or in its container';
comment on column main.processes.name is 'Executable; NULL where the export does not tell';
comment on column main.processes.devices is 'Devices that the process ran kernels on';
comment on column main.processes.launches is 'Kernel executions of the process';
