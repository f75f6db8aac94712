create table main.gpu_work as
with work as (
    select
        global_pid,
        process_id,
        device_id,
        context_id,
        stream_id,
        kernel_id,
        name_id,
        correlation_id,
        class,
        start_ns,
        end_ns
    from main.kernels
    union all
    select
        global_pid,
        (global_pid >> 24) & 16777215 as process_id,
        device_id,
        context_id,
        stream_id,
        null as kernel_id,
        null as name_id,
        correlation_id,
        'copy' as class,
        start_ns,
        end_ns
    from staging.stg_copies
),

ordered as (
    select
        *,
        row_number() over (
            partition by global_pid, device_id, context_id, stream_id
            order by start_ns, end_ns
        ) as place,
        max(end_ns) over (
            partition by global_pid, device_id, context_id, stream_id
            order by start_ns, end_ns
            rows between unbounded preceding and 1 preceding
        ) as previous_end_ns
    from work
),

launched as (
    select
        ordered.global_pid,
        ordered.process_id,
        ordered.device_id,
        ordered.context_id,
        ordered.stream_id,
        ordered.kernel_id,
        ordered.name_id,
        ordered.class,
        ordered.start_ns,
        ordered.end_ns,
        ordered.place,
        ordered.previous_end_ns,
        calls.global_tid,
        calls.start_ns as call_start_ns,
        calls.end_ns as call_end_ns,
        greatest(ordered.start_ns - ordered.previous_end_ns, 0) as gap_ns,
        -- What it adds to the time in which the stream was busy.
        greatest(
            ordered.end_ns
            - greatest(ordered.start_ns, coalesce(ordered.previous_end_ns, ordered.start_ns)),
            0
        ) as busy_ns
    from ordered
    left join staging.stg_api_calls as calls
        on
            ordered.global_pid = calls.global_pid
            and ordered.correlation_id = calls.correlation_id
)

select
    *,
    -- The stream had nothing to do, and the host had not finished launching this.
    least(greatest(coalesce(call_end_ns - previous_end_ns, 0), 0), gap_ns) as late_ns
from launched;

comment on table main.gpu_work is
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
