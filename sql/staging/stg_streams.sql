create table staging.stg_streams as
with counted as (
    select
        global_pid,
        device_id,
        context_id,
        stream_id,
        count(*) as work
    from staging.stg_kernels
    group by global_pid, device_id, context_id, stream_id
    union all
    select
        global_pid,
        device_id,
        context_id,
        stream_id,
        count(*) as work
    from staging.stg_copies
    group by global_pid, device_id, context_id, stream_id
),

added as (
    select
        global_pid,
        device_id,
        context_id,
        stream_id,
        sum(work)::bigint as work
    from counted
    group by global_pid, device_id, context_id, stream_id
)

select
    (row_number() over in_order)::integer as stream,
    global_pid,
    device_id,
    context_id,
    stream_id,
    (sum(work) over in_order)::bigint - work as before
from added
window in_order as (order by global_pid, device_id, context_id, stream_id);

comment on table staging.stg_streams is
'Streams that kernels or copies ran on, numbered from 1, with how many of these the streams before it ran (before). One small number sorts and joins faster than the four ids. Grain: one stream. Key: stream.';
