-- Overheads that CUPTI reports (seen from schema 3.24.0 on), some of them CUDA's own.
create table nsys.CUPTI_ACTIVITY_KIND_OVERHEAD (
    start bigint not null,
    "end" bigint not null,
    globalTid bigint,
    nameId bigint references nsys.StringIds (id),
    overheadType bigint
);
