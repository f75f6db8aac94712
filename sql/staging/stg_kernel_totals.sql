create view staging.stg_kernel_totals as
with totals as (
    select
        string_id,
        count(*) as launches,
        sum(dur_ns)::bigint as total_ns
    from staging.stg_kernels
    group by string_id
)

select
    names.name,
    totals.launches,
    totals.total_ns
from totals
inner join staging.stg_kernel_names as names on totals.string_id = names.string_id;

comment on view staging.stg_kernel_totals is
'Launches and durations by the id of the kernel''s name. Grain: one string id. Key: none, ids may share a name.';
