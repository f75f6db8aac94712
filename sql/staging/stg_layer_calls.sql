create view staging.stg_layer_calls as
select
    calls.global_pid,
    calls.correlation_id,
    ranges.layer
from staging.stg_api_calls as calls
asof inner join staging.stg_layer_ranges as ranges
    on calls.global_tid = ranges.global_tid and calls.start_ns >= ranges.start_ns
where calls.start_ns < ranges.end_ns;

comment on view staging.stg_layer_calls is
'CUDA API calls made inside a layer''s range. Grain: one correlation id of one process. Key: (global_pid, correlation_id).';
