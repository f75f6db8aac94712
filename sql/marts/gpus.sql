create view main.gpus as
select
    id as gpu_id,
    cuDevice as cuda_device_id,
    name,
    busLocation as bus_location,
    totalMemory as memory_bytes,
    smCount as sm_count,
    computeMajor || '.' || computeMinor as compute_capability,
    uuid
from nsys.TARGET_INFO_GPU;

comment on view main.gpus is
'GPUs of the host, used or not. Grain: one GPU. Key: gpu_id.';
comment on column main.gpus.gpu_id is 'Number of the GPU in the system';
comment on column main.gpus.cuda_device_id is 'Number of the GPU in CUDA''s order, with every GPU visible';
comment on column main.gpus.name is 'Model';
comment on column main.gpus.bus_location is 'PCI address';
comment on column main.gpus.memory_bytes is 'Memory, bytes';
comment on column main.gpus.sm_count is 'Streaming multiprocessors';
comment on column main.gpus.compute_capability is 'CUDA compute capability, major.minor';
comment on column main.gpus.uuid is 'UUID; may be empty';
