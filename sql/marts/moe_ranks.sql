create view main.moe_ranks as
select distinct
    rank,
    global_pid,
    process_id,
    device_id
from staging.stg_moe_launches;

comment on view main.moe_ranks is
'Ranks, which are what ran MoE kernels, numbered by host, device and process. Grain: one device of one process. Key: rank; (global_pid, device_id).';
comment on column main.moe_ranks.rank is 'Number of the rank, from 0';
comment on column main.moe_ranks.global_pid is 'Process as nsys serialises it (hardware, VM, pid)';
comment on column main.moe_ranks.process_id is 'Process id on its host, or in its container';
comment on column main.moe_ranks.device_id is 'CUDA ordinal of the GPU, as this process counts';
