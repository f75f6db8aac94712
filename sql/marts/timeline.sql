create view main.timeline as
with computing as (
    select
        global_pid,
        process_id,
        device_id,
        stream_id,
        case when class = 'moe_gemm' then 'moe' else 'compute' end as kind,
        function,
        start_ns,
        end_ns
    from main.kernels
    where class != 'collective'
),

meeting as (
    select
        global_pid,
        process_id,
        device_id,
        function,
        is_matched,
        start_ns,
        end_ns,
        start_ns + coalesce(wait_ns, 0) as arrived_ns
    from main.matched_collectives
),

communicating as (
    select
        global_pid,
        process_id,
        device_id,
        null::bigint as stream_id,
        'wait' as kind,
        function,
        start_ns,
        arrived_ns as end_ns
    from meeting
    where is_matched and start_ns < arrived_ns
    union all
    select
        global_pid,
        process_id,
        device_id,
        null::bigint as stream_id,
        case when is_matched then 'transfer' else 'unmatched' end as kind,
        function,
        arrived_ns as start_ns,
        end_ns
    from meeting
),

copying as (
    select
        global_pid,
        (global_pid >> 24) & 16777215 as process_id,
        device_id,
        null::bigint as stream_id,
        'copy' as kind,
        what as function,
        start_ns,
        end_ns
    from staging.stg_copies
),

events as (
    select * from computing
    union all
    select * from communicating
    union all
    select * from copying
)

select
    global_pid,
    process_id,
    device_id,
    stream_id,
    kind,
    function,
    start_ns,
    end_ns,
    end_ns - start_ns as dur_ns
from events;

comment on view main.timeline is
'What ran on each GPU and when; a matched collective is two stretches, waiting and transfer. Grain: one stretch of one kernel or copy. Key: none.';
comment on column main.timeline.global_pid is 'Process as nsys serialises it (hardware, VM, pid)';
comment on column main.timeline.process_id is 'Process id on its host, or in its container';
comment on column main.timeline.device_id is 'CUDA ordinal of the GPU, as this process counts';
comment on column main.timeline.stream_id is 'CUDA stream of a computing kernel; NULL for communication and copies';
comment on column main.timeline.kind is 'moe, compute, wait, transfer, unmatched (communication whose waiting is unknown) or copy';
comment on column main.timeline.function is 'Function component of the kernel''s name; copy or fill';
comment on column main.timeline.start_ns is 'Start, ns since the zero of the capture';
comment on column main.timeline.end_ns is 'End, ns since the zero of the capture';
comment on column main.timeline.dur_ns is 'Duration, ns';
