create view staging.stg_nccl_calls as
with depths as (
    select
        *,
        coalesce(
            sum(case name when 'ncclGroupStart' then 1 when 'ncclGroupEnd' then -1 else 0 end)
                over (
                    partition by globalTid
                    order by start
                    rows between unbounded preceding and 1 preceding
                ),
            0
        ) as depth
    from nsysmoe.nccl_ranges
),

numbered as (
    select
        *,
        count(*) filter (where name = 'ncclGroupStart' and depth = 0) over (
            partition by globalTid
            order by start
            rows between unbounded preceding and current row
        ) as group_number
    from depths
),

-- What a group launches, it launches when it ends: on one communicator, or nobody can say on which.
grouped as (
    select
        globalTid,
        group_number,
        min(communicator) as communicator
    from numbered
    where depth > 0
    group by globalTid, group_number
    having min(communicator) = max(communicator)
)

select
    numbered.globalTid as global_tid,
    numbered.start as start_ns,
    numbered."end" as end_ns,
    case
        when numbered.depth > 0 then grouped.communicator
        else numbered.communicator
    end as communicator
from numbered
left join grouped
    on numbered.globalTid = grouped.globalTid and numbered.group_number = grouped.group_number
where numbered.name = 'ncclGroupEnd' or numbered.depth = 0;

comment on view staging.stg_nccl_calls is
'NCCL''s calls that launch kernels: operations outside groups, and the ends of groups. Grain: one range. Key: (global_tid, start_ns).';
