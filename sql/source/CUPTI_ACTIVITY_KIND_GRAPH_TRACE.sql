-- One row per CUDA graph launch, written instead of the graph's kernels in nsys's graph mode.
create table nsys.CUPTI_ACTIVITY_KIND_GRAPH_TRACE (
    rowid bigint not null,
    start bigint not null,
    "end" bigint not null,
    deviceId bigint,
    streamId bigint,
    correlationId bigint,
    globalPid bigint,
    graphId bigint,
    graphExecId bigint
);
