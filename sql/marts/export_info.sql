create view main.export_info as
with settings as (
    select
        max(value) filter (where name = 'EXPORT_PRODUCT_VERSION') as nsys_version,
        max(value) filter (where name = 'EXPORT_SCHEMA_VERSION') as schema_version,
        max(value) filter (where name = 'EXPORT_PARAM_TIME_NORMALIZE') as time_normalized,
        max(value) filter (where name = 'EXPORT_PARAM_TIME_SHIFT') as time_shift
    from staging.stg_export_metadata
)

select
    settings.nsys_version,
    settings.schema_version,
    lower(settings.time_normalized) = 'true' as is_time_normalized,
    try_cast(settings.time_shift as bigint) as time_shift_ns,
    captured.host,
    captured.cuda_graph_trace,
    captured.utc_zero_ns
from settings
cross join staging.stg_capture_settings as captured;

comment on view main.export_info is
'Where the trace comes from. Grain: one row. The exporter''s version need not be the capture''s.';
comment on column main.export_info.nsys_version is 'Version of the nsys that exported; NULL before schema 2.9';
comment on column main.export_info.schema_version is 'Version of the export''s schema; NULL before schema 2.9';
comment on column main.export_info.is_time_normalized is 'Whether times are UTC (--ts-normalize)';
comment on column main.export_info.time_shift_ns is 'What --ts-shift added to every time, ns';
comment on column main.export_info.host is 'Host name; may be a container''s id';
comment on column main.export_info.cuda_graph_trace is 'graph or node: how CUDA graphs were recorded; NULL where the export does not tell';
comment on column main.export_info.utc_zero_ns is 'UTC of the zero of the capture, ns since 1970';
