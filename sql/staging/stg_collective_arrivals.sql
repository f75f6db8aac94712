create view staging.stg_collective_arrivals as
with ordered as (
    select
        kernel_id,
        global_pid,
        process_id,
        device_id,
        name_id,
        function,
        collective,
        data_type,
        start_ns,
        end_ns,
        dense_rank() over (order by device_id, global_pid) - 1 as rank,
        row_number() over (
            partition by name_id, global_pid, device_id
            order by start_ns, dur_ns
        ) - 1 as ordinal,
        count(*) over (partition by name_id, global_pid, device_id) as launches
    from main.collectives
)

select
    *,
    -- Some 64 of each name are enough to learn which ranks meet and how their clocks differ.
    ordinal % greatest(launches // 64, 1) = 0 as is_sampled
from ordered;

comment on view staging.stg_collective_arrivals is
'Communication kernels with their place among the rank''s kernels of that name. Grain: one kernel execution on one GPU. Key: kernel_id.';
