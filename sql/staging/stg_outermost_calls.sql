create table staging.stg_outermost_calls as
-- Sorted once; windows without an order of their own then take the rows as they come, one pass over
-- all threads (docs/performance.md: nothing but projections and filters may stand between). The
-- numbers of threads are so far apart that none reaches into the next.
with threads as (
    select
        globalTid as global_tid,
        row_number() over (order by globalTid)::hugeint * 18446744073709551616 as zero
    from nsys.CUPTI_ACTIVITY_KIND_RUNTIME
    group by globalTid
),

in_order as (
    select
        threads.zero,
        calls.globalTid as global_tid,
        calls.start as start_ns,
        calls."end" as end_ns,
        calls.nameId as name_id,
        coalesce(names.kind = 'blocking', false) as is_blocking
    from nsys.CUPTI_ACTIVITY_KIND_RUNTIME as calls
    inner join threads on calls.globalTid is not distinct from threads.global_tid
    left join staging.stg_call_names as names on calls.nameId = names.name_id
    order by threads.zero asc, calls.start asc, calls."end" desc
),

reached as (
    select
        *,
        max(zero + end_ns) over so_far as reach
    from in_order
    -- sqlfluff knows no window without an order.
    window so_far as (rows between unbounded preceding and current row)  -- noqa: PRS
),

judged as (
    select
        *,
        -- Out of reach where the call before is another thread's.
        try_cast(lag(reach) over () - zero as bigint) as covered_ns
    from reached
),

-- A call of the runtime makes calls of the driver: what happens inside a call belongs to it.
outermost as (
    select
        *,
        end_ns - start_ns as dur_ns,
        case when is_blocking then end_ns - start_ns else 0 end as waited_ns
    from judged
    where covered_ns is null or covered_ns <= start_ns
),

summed as (
    select
        *,
        sum(dur_ns) over so_far - dur_ns as all_ns,
        sum(waited_ns) over so_far - waited_ns as blocked_ns
    from outermost
    -- sqlfluff knows no window without an order.
    window so_far as (rows between unbounded preceding and current row)  -- noqa: PRS
),

begun as (
    select
        *,
        max(case when covered_ns is null then all_ns end) over so_far as earlier_ns,
        max(case when covered_ns is null then blocked_ns end) over so_far as blocked_earlier_ns
    from summed
    -- sqlfluff knows no window without an order.
    window so_far as (rows between unbounded preceding and current row)  -- noqa: PRS
)

select
    global_tid,
    start_ns,
    end_ns,
    name_id,
    covered_ns as free_ns,
    is_blocking,
    (all_ns - earlier_ns)::bigint as calls_before_ns,
    (blocked_ns - blocked_earlier_ns)::bigint as blocked_before_ns
from begun;

comment on table staging.stg_outermost_calls is
'CUDA API calls that no other contains, with the end of the call before (free_ns, NULL for the first) and the time that their thread spent in calls, and in blocking ones, before each. Grain: one outermost call. Key: (global_tid, start_ns). Invariant: calls of a thread do not overlap.';
