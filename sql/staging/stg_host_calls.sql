create view staging.stg_host_calls as
select
    calls.global_tid,
    calls.start_ns,
    calls.end_ns,
    calls.name_id,
    calls.free_ns,
    calls.is_blocking,
    -- A text for each of ten million calls is not kept.
    case when calls.is_blocking then 'blocking' else coalesce(names.kind, 'other') end as kind
from staging.stg_outermost_calls as calls
left join staging.stg_call_names as names on calls.name_id = names.name_id;

comment on view staging.stg_host_calls is
'CUDA API calls that no other contains, with what they do (kind). Grain: one outermost call. Key: (global_tid, start_ns). Invariant: the rows of stg_outermost_calls.';
