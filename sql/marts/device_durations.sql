create view main.device_durations as
select
    global_pid,
    process_id,
    device_id,
    dur_ns,
    count(*) as launches
from staging.stg_kernels
group by global_pid, process_id, device_id, dur_ns;

comment on view main.device_durations is
'How many kernels of each device took how long: what medians and percentiles need. Grain: one duration on one device of one process. Key: (global_pid, device_id, dur_ns). Invariant: launches add up to the rows of kernels.';
comment on column main.device_durations.global_pid is 'Process as nsys serialises it (hardware, VM, pid)';
comment on column main.device_durations.process_id is 'Process id on its host, or in its container';
comment on column main.device_durations.device_id is 'CUDA ordinal of the GPU, as this process counts';
comment on column main.device_durations.dur_ns is 'Duration, ns';
comment on column main.device_durations.launches is 'Kernel executions that took as long';
