create view main.blocking_calls as
select
    global_tid,
    global_tid - (global_tid & 16777215) as global_pid,
    start_ns,
    end_ns,
    end_ns - start_ns as dur_ns
from staging.stg_outermost_calls
where is_blocking;

comment on view main.blocking_calls is
'CUDA API calls that return when the GPU is done: synchronisations, copies that are not Async, and copies from a GPU to pageable memory. Grain: one call. Key: (global_tid, start_ns).';
comment on column main.blocking_calls.global_tid is 'Thread, as nsys serialises it';
comment on column main.blocking_calls.global_pid is 'Process as nsys serialises it (hardware, VM, pid)';
comment on column main.blocking_calls.start_ns is 'Start, ns since the zero of the capture';
comment on column main.blocking_calls.end_ns is 'End, ns since the zero of the capture';
comment on column main.blocking_calls.dur_ns is 'Duration, ns';
