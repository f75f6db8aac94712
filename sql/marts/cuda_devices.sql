create view main.cuda_devices as
select
    process_id,
    device_id,
    gpu_id
from staging.stg_cuda_devices;

comment on view main.cuda_devices is
'Which GPU a process calls by which CUDA ordinal, where that is sure; also for devices that were never used (from schema 3.17.2 on). Grain: one process and device. Key: (process_id, device_id).';
comment on column main.cuda_devices.process_id is 'Process id on its host, or in its container';
comment on column main.cuda_devices.device_id is 'CUDA ordinal of the GPU, as this process counts';
comment on column main.cuda_devices.gpu_id is 'GPU of the host (gpus.gpu_id)';
