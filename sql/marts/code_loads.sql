create view main.code_loads as
select
    global_tid,
    global_pid,
    call,
    start_ns,
    end_ns,
    dur_ns
from staging.stg_code_loads;

comment on view main.code_loads is
'CUDA API calls that load compiled code: a kernel was compiled or first used just before. Grain: one call. Key: (global_tid, start_ns).';
comment on column main.code_loads.global_tid is 'Thread, as nsys serialises it';
comment on column main.code_loads.global_pid is 'Process as nsys serialises it (hardware, VM, pid)';
comment on column main.code_loads.call is 'Name of the call';
comment on column main.code_loads.start_ns is 'Start, ns since the zero of the capture';
comment on column main.code_loads.end_ns is 'End, ns since the zero of the capture';
comment on column main.code_loads.dur_ns is 'Duration, ns: of the call alone, not of the compilation before it';
