create view main.launching_threads as
with counted as (
    select
        work.global_tid,
        streams.global_pid,
        (streams.global_pid >> 24) & 16777215 as process_id,
        streams.device_id,
        count(*) as work,
        min(work.call_start_ns) as first_launch_ns,
        max(work.call_end_ns) as last_launch_ns
    from staging.stg_work as work
    inner join staging.stg_streams as streams on work.stream = streams.stream
    where work.global_tid is not null
    group by work.global_tid, streams.global_pid, streams.device_id
)

select
    *,
    row_number() over (partition by global_pid, device_id order by work desc, global_tid asc) = 1
        as is_main
from counted;

comment on view main.launching_threads is
'Threads that launched work on a GPU. Grain: one thread and device. Key: (global_tid, device_id). Invariant: one thread of each process and device is the main one.';
comment on column main.launching_threads.global_tid is 'Thread, as nsys serialises it';
comment on column main.launching_threads.global_pid is 'Process as nsys serialises it (hardware, VM, pid)';
comment on column main.launching_threads.process_id is 'Process id on its host, or in its container';
comment on column main.launching_threads.device_id is 'CUDA ordinal of the GPU, as this process counts';
comment on column main.launching_threads.work is 'Kernels and copies that it launched there';
comment on column main.launching_threads.first_launch_ns is 'Start of the first call that launched any of it, ns since the zero of the capture';
comment on column main.launching_threads.last_launch_ns is 'End of the last call that launched any of it, ns since the zero of the capture';
comment on column main.launching_threads.is_main is 'Whether no other thread of the process launched more there';
