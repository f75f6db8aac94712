create view staging.stg_call_parts as
with blocks as (
    select
        correlation_id >> 16 as block,
        count(*) as calls
    from staging.stg_calls
    where correlation_id is not null
    group by correlation_id >> 16
),

numbered as (
    select
        block,
        calls,
        (sum(calls) over (order by block) - calls) // 1000000 as part
    from blocks
),

lows as (
    select (-9223372036854775808)::bigint as low
    union all
    select min(block) * 65536 as low
    from numbered
    where part > 0
    group by part
)

select
    low,
    coalesce(lead(low) over (order by low) - 1, 9223372036854775807) as high
from lows
union all
select
    null as low,
    null as high;

comment on view staging.stg_call_parts is
'Ranges of correlation ids, from low to high, with about a million calls each, and a row of NULL for what has no id: calls and what they launched are joined range by range, since ten million at once would go to disk to be joined there. Grain: one range. Key: low. Invariant: every id is in one of them.';
