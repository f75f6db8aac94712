create view staging.stg_export_metadata as
select
    name,
    value
from nsys.META_DATA_EXPORT
union all
select
    name,
    value
from nsys.EXPORT_META_DATA;

comment on view staging.stg_export_metadata is
'Export settings under either of the names that the table had. Grain: one setting. Key: name.';
