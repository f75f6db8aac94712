create view staging.stg_cuda_devices as
select
    pid as process_id,
    cudaId as device_id,
    min(gpuId) as gpu_id
from nsys.TARGET_INFO_CUDA_DEVICE
group by pid, cudaId
-- Processes of two containers may share a pid: an ambiguous pair names no GPU.
having count(distinct gpuId) = 1;

comment on view staging.stg_cuda_devices is
'Which GPU a process calls by which CUDA ordinal, where that is sure. Grain: one process and device. Key: (process_id, device_id).';
