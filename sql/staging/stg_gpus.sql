create view staging.stg_gpus as
select
    vmId as vm_id,
    id as gpu_id,
    min(cuDevice) as cuda_device_id,
    min(name) as name,
    min(busLocation) as bus_location,
    min(totalMemory) as memory_bytes,
    -- Some versions write 0 for what they do not know.
    nullif(min(memoryBandwidth), 0) as memory_bandwidth_bytes,
    min(smCount) as sm_count,
    min(computeMajor || '.' || computeMinor) as compute_capability,
    min(uuid) as uuid
from nsys.TARGET_INFO_GPU
group by vmId, id;

comment on view staging.stg_gpus is
'GPUs of the host. Grain: one GPU. Key: (vm_id, gpu_id).';
