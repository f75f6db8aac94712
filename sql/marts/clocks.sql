create view main.clocks as
with names as (
    select name_id
    from main.kernel_classes
    where
        class = 'collective'
        -- These end on all ranks within a few us; a broadcast, a reduce or a send may not.
        and role in ('all_reduce', 'all_gather', 'reduce_scatter', 'all_to_all')
),

sampled as (
    select arrivals.*
    from staging.stg_collective_arrivals as arrivals
    inner join names on arrivals.name_id = names.name_id
    where arrivals.is_sampled
),

-- What their ends differ by is the clock.
paired as (
    select
        theirs.rank,
        theirs.global_pid,
        theirs.process_id,
        theirs.device_id,
        theirs.series,
        theirs.end_ns,
        theirs.end_ns - ours.end_ns as apart_ns,
        abs(
            theirs.end_ns - ours.end_ns - lag(theirs.end_ns - ours.end_ns) over (
                partition by theirs.rank, theirs.series
                order by theirs.ordinal
            )
        ) as moved_ns
    from sampled as ours
    inner join sampled as theirs
        on
            ours.series = theirs.series
            and ours.ordinal = theirs.ordinal
            and ours.launches = theirs.launches
    where ours.rank = 0
),

-- Ends of one collective keep their distance from one to the next, whatever the clocks are; those
-- of another communicator come when they come.
-- 25 us from one sampled meeting to the next: a clock that drifts by more is refused with them.
shared as (
    select
        rank,
        series
    from paired
    group by rank, series
    having coalesce(median(moved_ns), 0) <= 25000
),

differences as (
    select
        paired.*,
        min(paired.end_ns) over (partition by paired.rank) as zero_ns
    from paired
    inner join shared on paired.rank = shared.rank and paired.series = shared.series
),

medians as (
    select
        rank,
        median(apart_ns) as offset_ns,
        mad(apart_ns) as spread_ns
    from differences
    group by rank
),

-- One late end (a page fault, another kernel on the same GPU) must not tilt the line.
inliers as (
    select differences.*
    from differences
    inner join medians on differences.rank = medians.rank
    where abs(differences.apart_ns - medians.offset_ns) <= 10 * medians.spread_ns + 1000
),

-- In order: sums of floats must not depend on which thread came first.
lines as (
    select
        rank,
        coalesce(regr_slope(apart_ns, end_ns - zero_ns order by end_ns, apart_ns), 0) as drift,
        coalesce(
            regr_intercept(apart_ns, end_ns - zero_ns order by end_ns, apart_ns), avg(apart_ns)
        ) as offset_ns
    from inliers
    group by rank
),

fitted as (
    select
        differences.rank,
        any_value(differences.global_pid) as global_pid,
        any_value(differences.process_id) as process_id,
        any_value(differences.device_id) as device_id,
        count(*) as meetings,
        any_value(differences.zero_ns) as zero_ns,
        any_value(lines.offset_ns) as offset_ns,
        any_value(lines.drift) as drift,
        quantile_cont(
            abs(
                differences.apart_ns - lines.offset_ns
                - lines.drift * (differences.end_ns - differences.zero_ns)
            ),
            0.95
        ) as residual_ns
    from differences
    inner join lines on differences.rank = lines.rank
    group by differences.rank
)

select
    rank,
    global_pid,
    process_id,
    device_id,
    meetings,
    zero_ns,
    offset_ns,
    drift * 1e6 as drift_ppm,
    residual_ns,
    -- GPUs of one host share a clock, and a ring completes within some 20 us: only what is more
    -- than that, fits as well as that and rests on enough meetings is a clock that is off.
    meetings >= 20 and abs(offset_ns) > 25000 and residual_ns <= 25000 as is_applied
from fitted;

comment on view main.clocks is
'How far the clock of each rank is from that of rank 0, fitted on the ends of collectives that both took part in: offset and drift by least squares without outliers. Grain: one rank that shares collectives with rank 0. Key: rank.';
comment on column main.clocks.rank is 'Number of the process and device among those that communicate, from 0';
comment on column main.clocks.global_pid is 'Process as nsys serialises it (hardware, VM, pid)';
comment on column main.clocks.process_id is 'Process id on its host, or in its container';
comment on column main.clocks.device_id is 'CUDA ordinal of the GPU, as this process counts';
comment on column main.clocks.meetings is 'Collectives that the fit rests on';
comment on column main.clocks.zero_ns is 'The rank''s own time at which the offset holds: its first meeting, ns since the zero of the capture';
comment on column main.clocks.offset_ns is 'Its ends less those of rank 0 at zero_ns, ns';
comment on column main.clocks.drift_ppm is 'Change of the offset, us for each second of the rank''s own time';
comment on column main.clocks.residual_ns is '95 % of ends lie within this of the fit, ns: a skew below it is not evidence. A clock that was set midway is in it, unless in the first or last 20th of the meetings';
comment on column main.clocks.is_applied is 'Whether waits are corrected by the fit: more than 25 us off, on at least 20 meetings, with a residual of 25 us at most';
