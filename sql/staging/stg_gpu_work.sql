create table staging.stg_gpu_work as
with work as (
    select
        global_pid,
        device_id,
        context_id,
        stream_id,
        kernel_id,
        correlation_id,
        class,
        start_ns,
        end_ns
    from main.kernels
    union all
    select
        global_pid,
        device_id,
        context_id,
        stream_id,
        null as kernel_id,
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

gapped as (
    select
        ordered.global_pid,
        ordered.device_id,
        ordered.context_id,
        ordered.stream_id,
        ordered.kernel_id,
        ordered.class,
        ordered.place,
        ordered.start_ns,
        ordered.end_ns,
        ordered.previous_end_ns,
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
from gapped;

comment on table staging.stg_gpu_work is
'Kernels and copies of each stream in order, with the gap before each and the part of it in which the host had not finished the launch. Grain: one kernel or copy. Key: (global_pid, device_id, context_id, stream_id, place). Invariant: on each stream, gap_ns and busy_ns add up to the time from the first start to the last end; late_ns <= gap_ns.';
