create table main.matched_collectives as
with fits as (
    select
        rank,
        zero_ns,
        offset_ns,
        drift_ppm / 1e6 as drift
    from main.clocks
    where is_applied
),

-- Times as rank 0's clock would have told them.
ordered as (
    select
        events.*,
        events.start_ns - coalesce(
            fits.offset_ns + fits.drift * (events.start_ns - fits.zero_ns), 0
        )::bigint as arrival_ns,
        events.end_ns - coalesce(
            fits.offset_ns + fits.drift * (events.end_ns - fits.zero_ns), 0
        )::bigint as departure_ns
    from staging.stg_collective_arrivals as events
    left join fits on events.rank = fits.rank
),

-- Ranks that launched different numbers cannot be paired by order: none is guessed.
pairable as (
    select series
    from staging.stg_collective_arrivals
    group by series
    having min(launches) = max(launches)
),

-- Those whose kernels of a name overlap at the same places of the order are one communicator.
overlapping as (
    select
        theirs.series,
        theirs.rank,
        ours.rank as peer
    from ordered as ours
    inner join ordered as theirs
        on
            ours.series = theirs.series
            and ours.ordinal = theirs.ordinal
            and ours.rank != theirs.rank
    inner join pairable on ours.series = pairable.series
    where ours.is_sampled and ours.nccl_communicator is null
    group by theirs.series, theirs.rank, ours.rank
    having
        2 * count(*) filter (
            where ours.arrival_ns < theirs.departure_ns and theirs.arrival_ns < ours.departure_ns
        ) >= count(*)
),

-- Where NCCL names it, all that launched on it are one.
groups as (
    select
        series,
        rank,
        null as nccl_communicator,
        least(rank, min(peer)) as first_rank
    from overlapping
    group by series, rank
    union all
    select
        firsts.series,
        firsts.rank,
        firsts.nccl_communicator,
        min(firsts.rank) over (partition by firsts.series) as first_rank
    from staging.stg_collective_arrivals as firsts
    inner join pairable on firsts.series = pairable.series
    where firsts.nccl_communicator is not null and firsts.ordinal = 0
),

communicators as (
    select
        series,
        rank,
        nccl_communicator,
        dense_rank() over (order by first_rank, nccl_communicator nulls first) - 1 as communicator
    from groups
),

names as (
    select
        name_id,
        function,
        role as collective,
        data_type
    from main.kernel_classes
    where class = 'collective'
),

-- Who came last, and who before: sorted once, since max(arrival_ns, 2) would hold a list for each
-- meeting in memory, whatever its limit. Windows without an order of their own then take the rows
-- as they come (docs/performance.md: nothing but projections and filters may stand between).
in_order as (
    select
        -- Keys of at most 24 bytes are sorted three times as fast as longer ones.
        ordered.series::integer as series,
        communicators.communicator::integer as communicator,
        ordered.ordinal::integer as ordinal,
        ordered.arrival_ns,
        ordered.departure_ns
    from ordered
    inner join communicators
        on ordered.series = communicators.series and ordered.rank = communicators.rank
    order by
        ordered.series::integer,
        communicators.communicator::integer,
        ordered.ordinal::integer,
        ordered.arrival_ns
),

followed as (
    select
        *,
        arrival_ns - lag(arrival_ns) over () as margin_ns,
        -- Of the very last row the next one is null.
        coalesce(
            lead(ordinal) over () != ordinal
            or lead(communicator) over () != communicator
            or lead(series) over () != series,
            true
        ) as is_end,
        lag(series) over () > series as is_disordered
    from in_order
),

meetings as (
    select
        series,
        communicator,
        ordinal,
        count(*) as ranks,
        max(arrival_ns) as last_arrival_ns,
        max(margin_ns) filter (where is_end) as margin_ns,
        min(departure_ns) as first_departure_ns
    from followed
    where case when is_disordered then error('rows came out of order') else true end
    group by series, communicator, ordinal
    -- Kernels that never overlap are not one collective.
    having max(arrival_ns) < min(departure_ns) and count(*) > 1
)

select
    ordered.kernel_id,
    ordered.global_pid,
    ordered.process_id,
    ordered.device_id,
    ordered.name_id,
    names.function,
    names.collective,
    names.data_type,
    ordered.ordinal,
    meetings.communicator::bigint as communicator,
    meetings.ranks,
    case
        when meetings.series is null then null
        when communicators.nccl_communicator is null then 'overlap'
        else 'nvtx'
    end as communicator_source,
    meetings.series is not null as is_matched,
    ordered.start_ns,
    ordered.end_ns,
    ordered.dur_ns,
    meetings.last_arrival_ns - ordered.arrival_ns as wait_ns,
    meetings.first_departure_ns - meetings.last_arrival_ns as transfer_ns,
    meetings.last_arrival_ns = ordered.arrival_ns as is_last,
    meetings.margin_ns
from ordered
inner join names on ordered.name_id = names.name_id
left join communicators
    on ordered.series = communicators.series and ordered.rank = communicators.rank
left join meetings
    on
        ordered.series = meetings.series
        and communicators.communicator = meetings.communicator
        and ordered.ordinal = meetings.ordinal;

comment on table main.matched_collectives is
'Communication kernels paired across ranks, by communicator, kernel name and order. Grain: one kernel execution on one GPU. Key: kernel_id. Invariant: the rows of collectives; wait_ns + transfer_ns <= dur_ns where matched.';
comment on column main.matched_collectives.kernel_id is 'Row number in CUPTI_ACTIVITY_KIND_KERNEL';
comment on column main.matched_collectives.global_pid is 'Process as nsys serialises it (hardware, VM, pid)';
comment on column main.matched_collectives.process_id is 'Process id on its host, or in its container';
comment on column main.matched_collectives.device_id is 'CUDA ordinal of the GPU, as this process counts';
comment on column main.matched_collectives.name_id is 'Number of the kernel''s name';
comment on column main.matched_collectives.function is 'Function component of the kernel''s name';
comment on column main.matched_collectives.collective is 'all_reduce, all_gather, reduce_scatter, broadcast, reduce, send_recv, all_to_all or other';
comment on column main.matched_collectives.data_type is 'Element type by the name; NULL where the name has none';
comment on column main.matched_collectives.ordinal is 'Place in the order of the rank''s kernels of this name, and of this communicator where NCCL''s ranges tell it, from 0';
comment on column main.matched_collectives.communicator is 'Number of the ranks that meet in this kernel, from 0: those that NCCL''s own ranges put on one communicator, else those whose kernels overlap; NULL where not matched';
comment on column main.matched_collectives.communicator_source is 'How the communicator is known: nvtx (payloads of NCCL''s ranges) or overlap; NULL where not matched';
comment on column main.matched_collectives.ranks is 'Ranks that met; NULL where not matched';
comment on column main.matched_collectives.is_matched is 'Whether every rank launched as many of this name, and this one overlaps its peers';
comment on column main.matched_collectives.start_ns is 'Start, ns since the zero of the capture: when this rank arrived';
comment on column main.matched_collectives.end_ns is 'End, ns since the zero of the capture';
comment on column main.matched_collectives.dur_ns is 'Duration, ns';
comment on column main.matched_collectives.wait_ns is 'Last arrival less own start, ns; NULL where not matched';
comment on column main.matched_collectives.transfer_ns is 'First end less last arrival, ns; NULL where not matched';
comment on column main.matched_collectives.is_last is 'Whether this rank arrived last; NULL where not matched';
comment on column main.matched_collectives.margin_ns is 'How much later the last rank came than the one before it, ns: below clocks.residual_ns nobody can say who was last; NULL where not matched';
