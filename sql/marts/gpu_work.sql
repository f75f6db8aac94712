create view main.gpu_work as
select
    streams.global_pid,
    (streams.global_pid >> 24) & 16777215 as process_id,
    streams.device_id,
    streams.context_id,
    streams.stream_id,
    work.kernel_id,
    work.name_id::bigint as name_id,
    case when work.kernel_id is null then 'copy' else functions.class end as class,
    work.start_ns,
    work.end_ns,
    work.position - streams.before as place,
    work.previous_end_ns,
    work.global_tid,
    work.call_start_ns,
    work.call_end_ns,
    work.gap_ns,
    work.busy_ns,
    work.late_ns
from staging.stg_measured_work as work
inner join staging.stg_streams as streams on work.stream = streams.stream
left join nsysmoe.kernel_functions as functions on work.name_id = functions.name_id;

comment on view main.gpu_work is
'Kernels and copies of each stream in order, with the call that launched each, the gap before it and the part of the gap in which the host had not finished the launch. Grain: one kernel or copy. Key: (global_pid, device_id, context_id, stream_id, place). Invariant: on each stream, gap_ns and busy_ns add up to the time from the first start to the last end; late_ns <= gap_ns.';
comment on column main.gpu_work.global_pid is 'Process as nsys serialises it (hardware, VM, pid)';
comment on column main.gpu_work.process_id is 'Process id on its host, or in its container';
comment on column main.gpu_work.device_id is 'CUDA ordinal of the GPU, as this process counts';
comment on column main.gpu_work.context_id is 'CUDA context, unique within a process';
comment on column main.gpu_work.stream_id is 'CUDA stream, unique within (global_pid, context_id)';
comment on column main.gpu_work.kernel_id is 'Row number in CUPTI_ACTIVITY_KIND_KERNEL; NULL for copies and fills';
comment on column main.gpu_work.name_id is 'Number of the kernel''s name; NULL for copies and fills';
comment on column main.gpu_work.class is 'What the kernel is for, by the class map; copy for copies and fills';
comment on column main.gpu_work.start_ns is 'Start, ns since the zero of the capture';
comment on column main.gpu_work.end_ns is 'End, ns since the zero of the capture';
comment on column main.gpu_work.place is 'Place in the order of the stream, from 1';
comment on column main.gpu_work.previous_end_ns is 'Latest end of what came before on the stream, ns; NULL for the first';
comment on column main.gpu_work.global_tid is 'Thread that launched it, as nsys serialises it; NULL where the call was not recorded';
comment on column main.gpu_work.call_start_ns is 'Start of the call that launched it, ns; the kernels of a replayed CUDA graph share one';
comment on column main.gpu_work.call_end_ns is 'End of that call, ns';
comment on column main.gpu_work.gap_ns is 'Time before it in which the stream had nothing to do, ns';
comment on column main.gpu_work.busy_ns is 'What it adds to the time in which the stream was busy, ns';
comment on column main.gpu_work.late_ns is 'Part of the gap in which its launch had not ended, ns';
