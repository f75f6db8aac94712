create view staging.stg_collective_events as
select
    events.kernel_id,
    events.global_pid,
    events.process_id,
    events.device_id,
    events.name_id,
    events.graph_node_id is not null as is_replayed,
    named.nccl_communicator,
    events.start_ns,
    events.end_ns,
    events.dur_ns
from main.collectives as events
left join staging.stg_named_collectives as named on events.kernel_id = named.kernel_id;

comment on view staging.stg_collective_events is
'Communication kernels with the communicator that NCCL''s ranges name, where they do. Grain: one kernel execution on one GPU. Key: kernel_id.';
