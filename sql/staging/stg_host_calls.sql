create view staging.stg_host_calls as
select
    abs(calls.signed_place)::bigint as place,
    calls.global_tid,
    calls.start_ns,
    calls.end_ns,
    calls.name_id,
    calls.free_ns,
    -- A text for each of ten million calls is not kept.
    case when calls.signed_place < 0 then 'blocking' else coalesce(names.kind, 'other') end as kind
from staging.stg_calls as calls
left join staging.stg_call_names as names on calls.name_id = names.name_id
where calls.signed_place is not null;

comment on view staging.stg_host_calls is
'CUDA API calls that no other contains, with what they do (kind). Grain: one outermost call. Key: place; (global_tid, start_ns). Invariant: the rows of stg_outermost_calls.';
