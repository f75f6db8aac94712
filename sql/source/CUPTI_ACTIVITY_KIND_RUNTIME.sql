-- One row per CUDA API call, of the driver and of the runtime alike. The correlation id joins a
-- call to what it launched, within a process.
create table nsys.CUPTI_ACTIVITY_KIND_RUNTIME (
    start bigint not null,
    "end" bigint not null,
    globalTid bigint,
    correlationId bigint,
    nameId bigint references nsys.StringIds (id)
);
