-- Every GPU of the host, used or not, in no order. id is the system's number, cuDevice CUDA's.
create table nsys.TARGET_INFO_GPU (
    id bigint not null,
    cuDevice bigint,
    name varchar,
    busLocation varchar,
    totalMemory bigint,
    smCount bigint,
    computeMajor bigint,
    computeMinor bigint,
    uuid varchar
);
