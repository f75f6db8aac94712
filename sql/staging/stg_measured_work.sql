create view staging.stg_measured_work as
with measured as (
    select
        *,
        greatest(start_ns - previous_end_ns, 0) as gap_ns,
        -- What it adds to the time in which the stream was busy.
        greatest(end_ns - greatest(start_ns, coalesce(previous_end_ns, start_ns)), 0) as busy_ns
    from staging.stg_work
)

select
    work.kernel_id,
    work.name_id,
    work.stream,
    work.position,
    work.start_ns,
    work.end_ns,
    work.previous_end_ns,
    work.global_tid,
    work.call_start_ns,
    work.call_end_ns,
    work.gap_ns,
    work.busy_ns,
    case when work.kernel_id is null then 'copy' else functions.class end as class,
    -- The stream had nothing to do, and the host had not finished launching this.
    least(greatest(coalesce(work.call_end_ns - work.previous_end_ns, 0), 0), work.gap_ns)
        as late_ns
from measured as work
left join nsysmoe.kernel_functions as functions on work.name_id = functions.name_id;

comment on view staging.stg_measured_work is
'The rows of stg_work with what follows from them: class, time in which the stream was busy, the gap before, and the part of the gap in which the host had not finished the launch. Grain: one kernel or copy. Key: position.';
