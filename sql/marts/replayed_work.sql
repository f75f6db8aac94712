create view main.replayed_work as
-- GPUs and threads of a process share a clock.
with fits as (
    select
        global_pid,
        arg_min(zero_ns, rank) as zero_ns,
        arg_min(offset_ns, rank) as offset_ns,
        arg_min(drift_ppm, rank) / 1e6 as drift
    from main.clocks
    where is_applied
    group by global_pid
),

meetings as (
    select
        kernel_id,
        dense_rank() over (order by name_id, communicator, ordinal) - 1 as meeting
    from main.matched_collectives
    where is_matched
),

clocked as (
    select
        work.*,
        streams.stream,
        meetings.meeting,
        fits.zero_ns,
        coalesce(fits.offset_ns, 0) as offset_ns,
        coalesce(fits.drift, 0) as drift
    from main.gpu_work as work
    inner join main.replayed_streams as streams
        on
            work.device_id = streams.device_id
            and work.global_pid is not distinct from streams.global_pid
            and work.context_id is not distinct from streams.context_id
            and work.stream_id is not distinct from streams.stream_id
    left join fits on work.global_pid = fits.global_pid
    left join meetings on work.kernel_id = meetings.kernel_id
),

-- Times as rank 0's clock would have told them: what meets has one time.
timed as (
    select
        *,
        start_ns - (offset_ns + drift * (start_ns - coalesce(zero_ns, start_ns)))::bigint
            as clocked_start_ns,
        end_ns - (offset_ns + drift * (end_ns - coalesce(zero_ns, end_ns)))::bigint
            as clocked_end_ns,
        call_start_ns
        - (offset_ns + drift * (call_start_ns - coalesce(zero_ns, call_start_ns)))::bigint
            as clocked_call_start_ns,
        call_end_ns - (offset_ns + drift * (call_end_ns - coalesce(zero_ns, call_end_ns)))::bigint
            as clocked_call_end_ns
    from clocked
)

select
    kernel_id,
    name_id,
    stream,
    global_tid,
    clocked_start_ns as start_ns,
    clocked_end_ns as end_ns,
    clocked_call_start_ns as call_start_ns,
    clocked_call_end_ns as call_end_ns,
    -- It had nothing to do before the launch was over; the first of a stream had nothing before it.
    (late_ns > 0 or previous_end_ns is null) and call_start_ns is not null as is_late,
    meeting
from timed
order by clocked_start_ns, clocked_end_ns, stream, place;

comment on view main.replayed_work is
'Work on GPUs as a replay takes it, on one clock and in order. Grain: one kernel, copy or fill. Key: (stream, start_ns, end_ns). Invariant: the rows of gpu_work; start_ns never falls.';
comment on column main.replayed_work.kernel_id is 'Row number in CUPTI_ACTIVITY_KIND_KERNEL; NULL for a copy';
comment on column main.replayed_work.name_id is 'Number of the kernel''s name; NULL for a copy';
comment on column main.replayed_work.stream is 'Its stream (replayed_streams.stream)';
comment on column main.replayed_work.global_tid is 'Thread that launched it, as nsys serialises it; NULL where not recorded';
comment on column main.replayed_work.start_ns is 'Start, ns by the clock of rank 0';
comment on column main.replayed_work.end_ns is 'End, ns by the clock of rank 0';
comment on column main.replayed_work.call_start_ns is 'Start of the launching call, ns by the clock of rank 0; NULL where not recorded';
comment on column main.replayed_work.call_end_ns is 'End of that call, ns by the clock of rank 0; NULL where not recorded';
comment on column main.replayed_work.is_late is 'Whether its stream had nothing to do before that call had ended';
comment on column main.replayed_work.meeting is 'Number of the matched collective that it takes part in, from 0; NULL outside any';
