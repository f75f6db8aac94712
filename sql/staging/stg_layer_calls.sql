create view staging.stg_layer_calls as
-- Ten million calls stand against the launches of one kernel in ten.
with calls as (
    select
        calls.global_pid,
        calls.correlation_id,
        calls.global_tid,
        calls.start_ns
    from staging.stg_api_calls as calls
    where
        (calls.global_pid, calls.correlation_id) in (
            select
                launches.global_pid,
                launches.correlation_id
            from staging.stg_moe_products as launches
        )
        and exists (select 1 from staging.stg_layer_ranges)
)

select
    calls.global_pid,
    calls.correlation_id,
    ranges.layer
from calls
asof inner join staging.stg_layer_ranges as ranges
    on calls.global_tid = ranges.global_tid and calls.start_ns >= ranges.start_ns
where calls.start_ns < ranges.end_ns;

comment on view staging.stg_layer_calls is
'CUDA API calls made inside a layer''s range that launch MoE kernels. Grain: one correlation id of one process. Key: (global_pid, correlation_id).';
