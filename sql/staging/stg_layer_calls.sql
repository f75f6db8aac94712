create view staging.stg_layer_calls as
with calls as (
    select
        kernel_id,
        global_tid,
        call_start_ns
    from staging.stg_placed_work
    where class = 'moe_gemm' and exists (select 1 from staging.stg_layer_ranges)
)

select
    calls.kernel_id,
    ranges.layer
from calls
asof inner join staging.stg_layer_ranges as ranges
    on calls.global_tid = ranges.global_tid and calls.call_start_ns >= ranges.start_ns
where calls.call_start_ns < ranges.end_ns;

comment on view staging.stg_layer_calls is
'MoE kernels that a CUDA API call inside a layer''s range launched. Grain: one kernel execution on a GPU. Key: kernel_id.';
