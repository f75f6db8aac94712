-- One row per fill of device memory.
create table nsys.CUPTI_ACTIVITY_KIND_MEMSET (
    start bigint not null,
    "end" bigint not null,
    deviceId bigint not null,
    globalPid bigint,
    contextId bigint,
    streamId bigint,
    correlationId bigint
);
