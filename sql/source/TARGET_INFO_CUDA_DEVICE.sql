-- (process, CUDA ordinal) to GPU, from schema 3.17.2 on; also for pairs that were never used.
create table nsys.TARGET_INFO_CUDA_DEVICE (
    gpuId bigint,
    cudaId bigint,
    pid bigint
);
