create view main.wait_ledger as
with ranks as (
    select
        global_pid,
        device_id,
        any_value(process_id) as process_id,
        (row_number() over (order by global_pid >> 48, device_id, global_pid))::integer as rank
    from main.matched_collectives
    where is_matched
    group by global_pid, device_id
),

-- Sorted once; windows without an order of their own then take the rows as they come
-- (docs/performance.md: nothing but projections and filters may stand between). With one, each
-- stream would be held in memory whole.
by_stream as (
    select
        ranks.rank,
        running.position,
        met.kernel_id,
        met.name_id,
        met.communicator,
        met.ordinal,
        met.function,
        met.is_last,
        met.start_ns,
        met.end_ns,
        met.wait_ns,
        -- Some exports have none.
        coalesce(running.context_id, -1) as context_id,
        coalesce(running.stream_id, -1) as stream_id,
        running.moe_ns,
        running.other_ns,
        running.late_ns,
        running.gap_ns
    from main.matched_collectives as met
    inner join staging.stg_collective_progress as running on met.kernel_id = running.kernel_id
    inner join ranks
        on
            met.device_id = ranks.device_id
            and met.global_pid is not distinct from ranks.global_pid
    where met.is_matched
    order by ranks.rank, running.position
),

followed as (
    select
        *,
        coalesce(
            lag(rank) over () = rank
            and lag(context_id) over () = context_id
            and lag(stream_id) over () = stream_id,
            false
        ) as is_same_stream,
        lag(rank) over () > rank
        or (lag(rank) over () = rank and lag(position) over () > position) as is_disordered,
        lag(end_ns) over () as previous_end_ns,
        moe_ns - lag(moe_ns) over () as since_moe_ns,
        other_ns - lag(other_ns) over () as since_other_ns,
        late_ns - lag(late_ns) over () as since_late_ns,
        gap_ns - lag(gap_ns) over () as since_gap_ns
    from by_stream
),

-- What each rank did on the collective's stream since its last matched one.
arrivals as (
    select
        kernel_id,
        rank,
        name_id::integer as name_id,
        communicator::integer as communicator,
        ordinal::integer as ordinal,
        function,
        is_last,
        start_ns,
        wait_ns,
        -- The first of a stream has nothing before it to count from.
        case when is_same_stream then previous_end_ns end as previous_end_ns,
        since_moe_ns as moe_ns,
        since_other_ns as other_ns,
        since_late_ns as late_ns,
        since_gap_ns as gap_ns
    from followed
    where case when is_disordered then error('rows came out of order') else true end
),

-- The last first. Where several came at the same instant, the first rank of them is the one that
-- was waited for.
by_meeting as (
    select *
    from arrivals
    -- Keys of at most 24 bytes are sorted three times as fast as longer ones.
    order by name_id, communicator, ordinal, not is_last, rank
),

begun as (
    select
        *,
        row_number() over () as place,
        coalesce(
            lag(ordinal) over () != ordinal
            or lag(communicator) over () != communicator
            or lag(name_id) over () != name_id,
            true
        ) as is_first,
        lag(name_id) over () > name_id as is_disordered
    from by_meeting
),

told as (
    select
        *,
        case when is_first then place end as begun_at
    from begun
),

met as (
    select
        *,
        arg_max_null(kernel_id, begun_at) over so_far as late_kernel_id,
        arg_max_null(rank, begun_at) over so_far as late_rank,
        arg_max_null(moe_ns, begun_at) over so_far as late_moe_ns,
        arg_max_null(other_ns, begun_at) over so_far as late_other_ns,
        arg_max_null(late_ns, begun_at) over so_far as late_late_ns,
        arg_max_null(gap_ns, begun_at) over so_far as late_gap_ns,
        arg_max_null(previous_end_ns, begun_at) over so_far as late_previous_end_ns
    from told
    -- sqlfluff knows no window without an order.
    window so_far as (rows between unbounded preceding and current row)  -- noqa: PRS
),

paired as (
    select
        met.kernel_id,
        early.global_pid,
        early.process_id,
        early.device_id,
        met.function,
        met.start_ns,
        met.late_kernel_id,
        late.global_pid as late_global_pid,
        late.process_id as late_process_id,
        late.device_id as late_device_id,
        met.wait_ns,
        (met.late_moe_ns - met.moe_ns)::bigint as moe_ns,
        (met.late_other_ns - met.other_ns)::bigint as other_kernels_ns,
        (met.late_late_ns - met.late_ns)::bigint as host_ns,
        (met.late_gap_ns - met.gap_ns)::bigint as other_gap_ns,
        met.late_previous_end_ns - met.previous_end_ns as previous_end_ns
    from met
    inner join ranks as early on met.rank = early.rank
    inner join ranks as late on met.late_rank = late.rank
    where
        case when met.is_disordered then error('rows came out of order') else not met.is_first end
        and met.previous_end_ns is not null
        and met.late_previous_end_ns is not null
)

select
    *,
    wait_ns - moe_ns - other_kernels_ns - host_ns - other_gap_ns - previous_end_ns as residual_ns
from paired;

comment on view main.wait_ledger is
'Why ranks waited: what the last rank did more than the waiting one since their last matched collective. Grain: one matched collective on one rank that was not the last. Key: kernel_id. Invariant: moe_ns + other_kernels_ns + host_ns + other_gap_ns + previous_end_ns + residual_ns = wait_ns; the first collective of a stream is left out.';
comment on column main.wait_ledger.kernel_id is 'Row number in CUPTI_ACTIVITY_KIND_KERNEL: the kernel that waited';
comment on column main.wait_ledger.global_pid is 'Process as nsys serialises it (hardware, VM, pid)';
comment on column main.wait_ledger.process_id is 'Process id on its host, or in its container';
comment on column main.wait_ledger.device_id is 'CUDA ordinal of the GPU, as this process counts';
comment on column main.wait_ledger.function is 'Function component of the kernel''s name';
comment on column main.wait_ledger.start_ns is 'Start, ns since the zero of the capture: when this rank arrived';
comment on column main.wait_ledger.late_kernel_id is 'The kernel of the rank that came last';
comment on column main.wait_ledger.late_global_pid is 'Process that was waited for, as nsys serialises it';
comment on column main.wait_ledger.late_process_id is 'Process that was waited for';
comment on column main.wait_ledger.late_device_id is 'Device that was waited for';
comment on column main.wait_ledger.wait_ns is 'Last arrival less own start, ns';
comment on column main.wait_ledger.moe_ns is 'MoE kernels: how much longer the last rank''s took, ns';
comment on column main.wait_ledger.other_kernels_ns is 'Other kernels and copies: how much longer the last rank''s took, ns';
comment on column main.wait_ledger.host_ns is 'Gaps in which the stream had nothing to do and the host had not finished the launch: how much longer on the last rank, ns';
comment on column main.wait_ledger.other_gap_ns is 'Other gaps: how much longer on the last rank, ns';
comment on column main.wait_ledger.previous_end_ns is 'How much later the last rank''s previous matched collective ended, ns';
comment on column main.wait_ledger.residual_ns is 'What these do not explain, ns: work on other streams, clocks; 0 on one stream a rank';
