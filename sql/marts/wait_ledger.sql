create view main.wait_ledger as
with
-- What each rank did on the collective's stream since its last matched one.
arrivals as (
    select
        met.*,
        lag(met.end_ns) over by_rank as previous_end_ns,
        running.moe_ns - lag(running.moe_ns) over by_rank as moe_ns,
        running.other_ns - lag(running.other_ns) over by_rank as other_ns,
        running.late_ns - lag(running.late_ns) over by_rank as late_ns,
        running.gap_ns - lag(running.gap_ns) over by_rank as gap_ns
    from main.matched_collectives as met
    inner join staging.stg_collective_progress as running on met.kernel_id = running.kernel_id
    where met.is_matched
    window by_rank as (
        partition by met.global_pid, met.device_id, running.context_id, running.stream_id
        order by met.start_ns
    )
),

-- Where several came at the same instant, the first rank of them is the one that was waited for.
last_ones as (
    select
        name_id,
        communicator,
        ordinal,
        first(kernel_id order by global_pid >> 48, device_id, global_pid) as kernel_id
    from arrivals
    where is_last
    group by name_id, communicator, ordinal
),

paired as (
    select
        early.kernel_id,
        early.global_pid,
        early.process_id,
        early.device_id,
        early.function,
        early.start_ns,
        late.kernel_id as late_kernel_id,
        late.global_pid as late_global_pid,
        late.process_id as late_process_id,
        late.device_id as late_device_id,
        early.wait_ns,
        (late.moe_ns - early.moe_ns)::bigint as moe_ns,
        (late.other_ns - early.other_ns)::bigint as other_kernels_ns,
        (late.late_ns - early.late_ns)::bigint as host_ns,
        (late.gap_ns - early.gap_ns)::bigint as other_gap_ns,
        late.previous_end_ns - early.previous_end_ns as previous_end_ns
    from arrivals as early
    inner join last_ones
        on
            early.name_id = last_ones.name_id
            and early.communicator = last_ones.communicator
            and early.ordinal = last_ones.ordinal
    inner join arrivals as late on last_ones.kernel_id = late.kernel_id
    where
        early.kernel_id != late.kernel_id
        -- The first of a stream has nothing before it to count from.
        and early.previous_end_ns is not null
        and late.previous_end_ns is not null
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
