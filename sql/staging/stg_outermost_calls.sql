create view staging.stg_outermost_calls as
-- A call of the runtime makes calls of the driver: what happens inside a call belongs to it.
select
    abs(calls.signed_place)::bigint as place,
    calls.global_tid,
    calls.start_ns,
    calls.end_ns,
    calls.name_id,
    calls.free_ns,
    coalesce(calls.signed_place < 0 or names.kind = 'blocking', false) as is_blocking
from staging.stg_calls as calls
left join staging.stg_call_names as names on calls.name_id = names.name_id
where calls.signed_place is not null;

comment on view staging.stg_outermost_calls is
'CUDA API calls that no other contains, numbered in order of thread and time from 1 (place), with the end of the call before (free_ns, NULL for the first). Grain: one outermost call. Key: place; (global_tid, start_ns). Invariant: calls of a thread do not overlap.';
