create table staging.stg_api_calls as
select
    (globalTid >> 24) << 24 as global_pid,
    correlationId as correlation_id,
    -- A runtime call and the driver call inside it may share the id: the outer one comes first.
    arg_min(globalTid, start) as global_tid,
    min(start) as start_ns,
    max("end") as end_ns
from nsys.CUPTI_ACTIVITY_KIND_RUNTIME
where correlationId is not null
group by all;

comment on table staging.stg_api_calls is
'CUDA API calls. Grain: one correlation id of one process. Key: (global_pid, correlation_id).';
