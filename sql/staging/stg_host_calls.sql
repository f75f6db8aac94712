create table staging.stg_host_calls as
with judged as (
    select
        calls.globalTid as global_tid,
        calls.start as start_ns,
        calls."end" as end_ns,
        calls.nameId as name_id,
        coalesce(names.kind, 'other') as kind,
        max(calls."end") over (
            partition by calls.globalTid
            order by calls.start asc, calls."end" desc
            rows between unbounded preceding and 1 preceding
        ) as covered_ns
    from nsys.CUPTI_ACTIVITY_KIND_RUNTIME as calls
    left join staging.stg_call_names as names on calls.nameId = names.name_id
),

-- A call of the runtime makes calls of the driver: what happens inside a call belongs to it.
outermost as (
    select
        global_tid,
        start_ns,
        end_ns,
        name_id,
        kind,
        covered_ns as free_ns,
        kind = 'blocking' as is_blocking
    from judged
    where coalesce(covered_ns <= start_ns, true)
),

-- Both sums in one number, the blocking part in its lower 64 bits: a running sum is what takes
-- time here, and it is worked out once.
summed as (
    select
        *,
        coalesce(
            sum(
                (end_ns - start_ns)::hugeint * 18446744073709551616
                + case when is_blocking then end_ns - start_ns else 0 end
            ) over before,
            0
        )::hugeint as both_ns
    from outermost
    window before as (
        partition by global_tid
        order by start_ns, end_ns
        rows between unbounded preceding and 1 preceding
    )
)

select
    global_tid,
    start_ns,
    end_ns,
    name_id,
    kind,
    free_ns,
    is_blocking,
    (both_ns >> 64)::bigint as calls_before_ns,
    (both_ns & 18446744073709551615)::bigint as blocked_before_ns
from summed;

comment on table staging.stg_host_calls is
'CUDA API calls that no other contains, with the end of the call before (free_ns, NULL for the first) and the time that their thread spent in calls, and in blocking ones, before each. Grain: one outermost call. Key: (global_tid, start_ns). Invariant: calls of a thread do not overlap.';
