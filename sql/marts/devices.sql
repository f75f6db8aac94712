create view main.devices as
with used as (
    select
        global_pid,
        process_id,
        device_id,
        count(*) as launches,
        count(graph_node_id) as graph_launches,
        min(start_ns) as first_start_ns,
        max(end_ns) as last_end_ns
    from staging.stg_kernels
    group by global_pid, process_id, device_id
),

-- Without a map the model is still sure where all GPUs of the host are of one model.
only_model as (
    select min(name) as name
    from staging.stg_gpus
    having count(distinct name) = 1
)

select
    used.global_pid,
    used.process_id,
    used.device_id,
    mapped.gpu_id,
    coalesce(gpus.name, only_model.name) as gpu_name,
    used.launches,
    used.graph_launches,
    used.first_start_ns,
    used.last_end_ns
from used
left join staging.stg_cuda_devices as mapped
    on used.process_id = mapped.process_id and used.device_id = mapped.device_id
-- A process and its GPUs are of one VM: bits 48 to 63 of both ids.
left join staging.stg_gpus as gpus
    on
        mapped.gpu_id = gpus.gpu_id
        and used.global_pid - (used.global_pid & 281474976710655) = gpus.vm_id
left join only_model on true;

comment on view main.devices is
'The GPUs that ran kernels, as their processes see them. Grain: one process and device. Key: (global_pid, device_id). Invariant: launches add up to the rows of kernels.';
comment on column main.devices.global_pid is 'Process as nsys serialises it (hardware, VM, pid); NULL where the export has none';
comment on column main.devices.process_id is 'Process id on its host, or in its container';
comment on column main.devices.device_id is 'CUDA ordinal of the GPU, as this process counts';
comment on column main.devices.gpu_id is 'GPU of the host (gpus.gpu_id); NULL where the export does not tell (before schema 3.17.2)';
comment on column main.devices.gpu_name is 'Model of the GPU; NULL where it is not sure';
comment on column main.devices.launches is 'Kernel executions of this process on this device';
comment on column main.devices.graph_launches is 'Those of them that a replayed CUDA graph launched';
comment on column main.devices.first_start_ns is 'Start of its first kernel, ns since the zero of the capture';
comment on column main.devices.last_end_ns is 'End of its last kernel, ns since the zero of the capture';
