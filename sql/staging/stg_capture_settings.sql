create view staging.stg_capture_settings as
select
    (
        select lower(max(value))
        from nsys.META_DATA_CAPTURE
    ) as cuda_graph_trace,
    (
        select max(value)
        from nsys.TARGET_INFO_SYSTEM_ENV
    ) as host,
    (
        select max(utcEpochNs)
        from nsys.TARGET_INFO_SESSION_START_TIME
    ) as utc_zero_ns;

comment on view staging.stg_capture_settings is
'The settings of the capture that are read at all (the loader''s allow list names one each). Grain: one row. Key: none, it is one row.';
