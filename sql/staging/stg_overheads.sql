create view staging.stg_overheads as
with rows_of_both as (
    select
        start as start_ns,
        "end" as end_ns,
        globalTid as global_tid,
        nameId as name_id,
        overheadType as overhead_type
    from nsys.PROFILER_OVERHEAD
    union all
    select
        start as start_ns,
        "end" as end_ns,
        globalTid as global_tid,
        nameId as name_id,
        overheadType as overhead_type
    from nsys.CUPTI_ACTIVITY_KIND_OVERHEAD
)

select
    overheads.global_tid,
    overheads.global_tid - (overheads.global_tid & 16777215) as global_pid,
    (overheads.global_tid >> 24) & 16777215 as process_id,
    coalesce(names.value, '?') as kind,
    -- ENUM_CUPTI_OVERHEAD_TYPE: driver compiler, module and function loading, full command buffer.
    case when overheads.overhead_type in (2, 6, 7, 8) then 'cuda' else 'profiler' end as origin,
    overheads.start_ns,
    overheads.end_ns
from rows_of_both as overheads
left join nsys.StringIds as names on overheads.name_id = names.id;

comment on view staging.stg_overheads is
'Overheads as nsys and CUPTI recorded them. Grain: one recorded overhead. Key: none (rows may nest, and repeat).';
