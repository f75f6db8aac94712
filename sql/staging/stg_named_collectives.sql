-- led by nsysmoe.nccl_ranges
create table staging.stg_named_collectives as
with launched as (
    select
        events.kernel_id,
        events.graph_node_id,
        named.communicator,
        calls.start_ns,
        named.end_ns
    from main.collectives as events
    inner join staging.stg_api_calls as calls
        on
            events.global_pid = calls.global_pid
            and events.correlation_id = calls.correlation_id
    asof inner join staging.stg_nccl_calls as named
        on calls.global_tid = named.global_tid and calls.start_ns >= named.start_ns
),

named as (
    select
        kernel_id,
        communicator
    from launched
    -- A replayed graph's kernels are inside no call of NCCL's.
    where start_ns < end_ns and communicator is not null and graph_node_id is null
)

select
    named.kernel_id,
    numbers.nccl_communicator
from named
inner join staging.stg_communicators as numbers on named.communicator = numbers.communicator;

comment on table staging.stg_named_collectives is
'Communication kernels whose communicator NCCL''s ranges name. Grain: one kernel execution. Key: kernel_id.';
