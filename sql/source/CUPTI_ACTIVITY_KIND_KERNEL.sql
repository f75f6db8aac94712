-- One row per kernel execution on a GPU. rowid is SQLite's own row number, the one key that every
-- version has: correlation ids repeat across processes and within a replayed CUDA graph.
create table nsys.CUPTI_ACTIVITY_KIND_KERNEL (
    rowid bigint not null,
    start bigint not null,
    "end" bigint not null,
    deviceId bigint not null,
    contextId bigint,
    streamId bigint,
    correlationId bigint,
    globalPid bigint,
    demangledName bigint not null references nsys.StringIds (id),
    gridX bigint,
    gridY bigint,
    gridZ bigint,
    blockX bigint,
    blockY bigint,
    blockZ bigint,
    registersPerThread bigint,
    staticSharedMemory bigint,
    dynamicSharedMemory bigint,
    graphNodeId bigint
);
