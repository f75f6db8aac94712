create view staging.stg_kernel_names as
with used as (
    select distinct demangledName as string_id
    from nsys.CUPTI_ACTIVITY_KIND_KERNEL
)

select
    used.string_id,
    coalesce(strings.value, '?') as name
from used
left join nsys.StringIds as strings on used.string_id = strings.id;

comment on view staging.stg_kernel_names is
'Names of the kernels that ran; ? where StringIds lacks the id. Grain: one string id. Key: string_id.';
