-- One row per copy between host and device, or between devices.
create table nsys.CUPTI_ACTIVITY_KIND_MEMCPY (
    start bigint not null,
    "end" bigint not null,
    deviceId bigint not null,
    globalPid bigint,
    contextId bigint,
    streamId bigint,
    correlationId bigint,
    copyKind bigint,
    dstKind bigint
);
