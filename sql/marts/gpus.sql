create view main.gpus as
select
    vm_id,
    gpu_id,
    cuda_device_id,
    name,
    bus_location,
    memory_bytes,
    memory_bandwidth_bytes,
    sm_count,
    compute_capability,
    uuid
from staging.stg_gpus;

comment on view main.gpus is
'GPUs of the host, used or not. Grain: one GPU. Key: (vm_id, gpu_id).';
comment on column main.gpus.vm_id is 'Virtual machine as nsys serialises it; one on most hosts';
comment on column main.gpus.gpu_id is 'Number of the GPU in the system, within its VM';
comment on column main.gpus.cuda_device_id is 'Number of the GPU in CUDA''s order, with every GPU visible';
comment on column main.gpus.name is 'Model';
comment on column main.gpus.bus_location is 'PCI address';
comment on column main.gpus.memory_bytes is 'Memory, bytes';
comment on column main.gpus.memory_bandwidth_bytes is 'Bandwidth of its memory by clock and bus width, bytes a second; NULL where the export does not tell';
comment on column main.gpus.sm_count is 'Streaming multiprocessors';
comment on column main.gpus.compute_capability is 'CUDA compute capability, major.minor';
comment on column main.gpus.uuid is 'UUID; may be empty';
