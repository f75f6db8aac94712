create view staging.stg_code_loads as
select
    calls.globalTid as global_tid,
    (calls.globalTid >> 24) << 24 as global_pid,
    names.value as call,
    calls.start as start_ns,
    calls."end" as end_ns,
    calls."end" - calls.start as dur_ns
from nsys.CUPTI_ACTIVITY_KIND_RUNTIME as calls
inner join nsys.StringIds as names on calls.nameId = names.id
where regexp_matches(names.value, '^cu(ModuleLoad|LibraryLoad|LinkComplete|daLibraryLoad)');

comment on view staging.stg_code_loads is
'CUDA API calls that load compiled code. Grain: one call. Key: (global_tid, start_ns).';
