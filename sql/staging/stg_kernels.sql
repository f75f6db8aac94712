create view staging.stg_kernels as
select
    rowid as kernel_id,
    globalPid as global_pid,
    (globalPid >> 24) & 16777215 as process_id,
    deviceId as device_id,
    contextId as context_id,
    streamId as stream_id,
    correlationId as correlation_id,
    graphNodeId as graph_node_id,
    demangledName as string_id,
    start as start_ns,
    "end" as end_ns,
    "end" - start as dur_ns,
    gridX as grid_x,
    gridY as grid_y,
    gridZ as grid_z,
    blockX as block_x,
    blockY as block_y,
    blockZ as block_z,
    registersPerThread as registers_per_thread,
    staticSharedMemory as static_shared_bytes,
    dynamicSharedMemory as dynamic_shared_bytes
from nsys.CUPTI_ACTIVITY_KIND_KERNEL;

comment on view staging.stg_kernels is
'Kernel executions with names and units of their own. Grain: one kernel execution on a GPU. Key: kernel_id. Invariant: dur_ns >= 0.';
