-- What nsys did in the profiled processes. overheadType took the place of returnValue in schema
-- 3.24.0.
create table nsys.PROFILER_OVERHEAD (
    start bigint not null,
    "end" bigint not null,
    globalTid bigint,
    nameId bigint references nsys.StringIds (id),
    overheadType bigint
);
