-- Every GPU of the host, used or not, in no order. id is the system's number within a VM, cuDevice
-- CUDA's.
create table nsys.TARGET_INFO_GPU (
    vmId bigint,
    id bigint not null,
    cuDevice bigint,
    name varchar,
    busLocation varchar,
    totalMemory bigint,
    memoryBandwidth bigint,
    smCount bigint,
    computeMajor bigint,
    computeMinor bigint,
    uuid varchar
);
