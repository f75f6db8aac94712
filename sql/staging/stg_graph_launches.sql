create view staging.stg_graph_launches as
select
    rowid as graph_launch_id,
    globalPid as global_pid,
    (globalPid >> 24) & 16777215 as process_id,
    -- INT_MAX marks a launch whose start was taken on the host.
    nullif(deviceId, 2147483647) as device_id,
    streamId as stream_id,
    correlationId as correlation_id,
    graphId as graph_id,
    graphExecId as graph_exec_id,
    start as start_ns,
    "end" as end_ns,
    "end" - start as dur_ns
from nsys.CUPTI_ACTIVITY_KIND_GRAPH_TRACE;

comment on view staging.stg_graph_launches is
'CUDA graph launches recorded as a whole. Grain: one launch. Key: graph_launch_id.';
