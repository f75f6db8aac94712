create view staging.stg_code_loads as
select
    calls.globalTid as global_tid,
    calls.globalTid - (calls.globalTid & 16777215) as global_pid,
    names.name as call,
    calls.start as start_ns,
    calls."end" as end_ns,
    calls."end" - calls.start as dur_ns
from nsys.CUPTI_ACTIVITY_KIND_RUNTIME as calls
inner join staging.stg_call_names as names on calls.nameId = names.name_id
where names.kind = 'load';

comment on view staging.stg_code_loads is
'CUDA API calls that load compiled code. Grain: one call. Key: (global_tid, start_ns).';
