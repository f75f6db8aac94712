-- NCCL's own ranges and the communicators that their payloads name (nsys export
-- --include-json=true). Filled by nsysmoe.export.nccl, which reads the payloads' JSON; no rows
-- where the export holds none.
create table nsysmoe.nccl_ranges (
    start bigint not null,
    "end" bigint not null,
    globalTid bigint,
    name varchar not null,
    communicator varchar
);
