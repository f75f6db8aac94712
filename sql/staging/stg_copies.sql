create view staging.stg_copies as
select
    globalPid as global_pid,
    deviceId as device_id,
    contextId as context_id,
    streamId as stream_id,
    correlationId as correlation_id,
    'copy' as what,
    start as start_ns,
    "end" as end_ns
from nsys.CUPTI_ACTIVITY_KIND_MEMCPY
union all
select
    globalPid as global_pid,
    deviceId as device_id,
    contextId as context_id,
    streamId as stream_id,
    correlationId as correlation_id,
    'fill' as what,
    start as start_ns,
    "end" as end_ns
from nsys.CUPTI_ACTIVITY_KIND_MEMSET;

comment on view staging.stg_copies is
'Copies and fills of device memory outside kernels. Grain: one copy or fill. Key: none.';
