create table staging.stg_host_calls as
with blocking as (
    select id as name_id
    from nsys.StringIds
    -- Copies of the driver and of the runtime that are not Async wait for the GPU as well.
    where
        regexp_matches(
            value,
            '^cu(da)?(Stream|Device|Event|Ctx|Thread)Synchronize'
            || '|^cudaMemcpy(2D|3D)?(To|From)?(Symbol|Array)*(_v|_ptds|$)'
            || '|^cuMemcpy(2D|3D)?([DHA]to[DHA])?(_v|_ptds|$)'
        )
),

judged as (
    select
        calls.globalTid as global_tid,
        calls.start as start_ns,
        calls."end" as end_ns,
        blocking.name_id is not null as is_blocking,
        max(calls."end") over (
            partition by calls.globalTid
            order by calls.start asc, calls."end" desc
            rows between unbounded preceding and 1 preceding
        ) as covered_ns
    from nsys.CUPTI_ACTIVITY_KIND_RUNTIME as calls
    left join blocking on calls.nameId = blocking.name_id
),

-- A call of the runtime makes calls of the driver: what happens inside a call belongs to it.
outermost as (
    select
        global_tid,
        start_ns,
        end_ns,
        is_blocking
    from judged
    where coalesce(covered_ns <= start_ns, true)
)

select
    *,
    coalesce(sum(end_ns - start_ns) over before, 0)::bigint as calls_before_ns,
    coalesce(sum(case when is_blocking then end_ns - start_ns else 0 end) over before, 0)::bigint
        as blocked_before_ns
from outermost
window before as (
    partition by global_tid
    order by start_ns, end_ns
    rows between unbounded preceding and 1 preceding
);

comment on table staging.stg_host_calls is
'CUDA API calls that no other contains, with the time that their thread spent in calls, and in blocking ones, before each. Grain: one outermost call. Key: (global_tid, start_ns). Invariant: calls of a thread do not overlap.';
