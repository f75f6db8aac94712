create view main.replayed_streams as
select
    global_pid,
    device_id,
    context_id,
    stream_id,
    row_number() over (
        order by global_pid nulls first, device_id, context_id nulls first, stream_id nulls first
    ) - 1 as stream,
    dense_rank() over (order by global_pid nulls first, device_id) - 1 as device
from staging.stg_streams
where device_id is not null;

comment on view main.replayed_streams is
'Streams of all GPUs, numbered. Grain: one stream. Key: stream. Invariant: every row of gpu_work is on one of them.';
comment on column main.replayed_streams.global_pid is 'Process as nsys serialises it (hardware, VM, pid); NULL where the export has none';
comment on column main.replayed_streams.device_id is 'CUDA ordinal of the GPU, as this process counts';
comment on column main.replayed_streams.context_id is 'CUDA context, unique within a process';
comment on column main.replayed_streams.stream_id is 'CUDA stream, unique within (global_pid, context_id)';
comment on column main.replayed_streams.stream is 'Its number, from 0';
comment on column main.replayed_streams.device is 'Number of its GPU as a process counts it, from 0';
