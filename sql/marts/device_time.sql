create table main.device_time as
-- Of two million stretches a few for each step differ in what runs.
with lasting as (
    select
        place,
        open,
        sum(end_ns - start_ns)::bigint as dur_ns
    from intervals.segments
    group by place, open
),

told as (
    select
        place,
        dur_ns,
        (open & 1023) > 0 as has_moe,
        (open & 1048575) > 0 as has_work,
        ((open >> 20) & 1023) > 0 as has_wait,
        ((open >> 30) & 1023) > 0 as has_transfer,
        ((open >> 40) & 1023) > 0 as has_unmatched,
        ((open >> 20) & 1073741823) > 0 as has_communication,
        ((open >> 50) & 1023) > 0 as has_copy
    from lasting
),

placed as (
    select
        steps.global_pid,
        steps.process_id,
        steps.device_id,
        steps.step,
        steps.phase,
        steps.start_ns as step_start_ns,
        told.*
    from told
    inner join intervals.placed_steps as steps on told.place = steps.place
),

summed as (
    select
        global_pid,
        process_id,
        device_id,
        step,
        phase,
        step_start_ns as start_ns,
        sum(dur_ns) as window_ns,
        sum(dur_ns) filter (where has_work or has_communication or has_copy) as busy_ns,
        sum(dur_ns) filter (where has_work) as compute_ns,
        sum(dur_ns) filter (where has_moe) as moe_ns,
        sum(dur_ns) filter (where has_transfer) as transfer_ns,
        sum(dur_ns) filter (where has_wait) as wait_ns,
        sum(dur_ns) filter (where has_work and has_communication) as overlap_ns,
        sum(dur_ns) filter (where has_transfer and not has_work) as exposed_transfer_ns,
        sum(dur_ns) filter (where has_wait and not has_work and not has_transfer)
            as exposed_wait_ns,
        sum(dur_ns) filter (
            where has_unmatched and not has_work and not has_transfer and not has_wait
        ) as exposed_unmatched_ns,
        sum(dur_ns) filter (where has_copy and not has_work and not has_communication)
            as exposed_copy_ns
    from placed
    group by all
)

select
    global_pid,
    process_id,
    device_id,
    step,
    phase,
    start_ns,
    window_ns::bigint as window_ns,
    coalesce(busy_ns, 0)::bigint as busy_ns,
    (window_ns - coalesce(busy_ns, 0))::bigint as idle_ns,
    coalesce(compute_ns, 0)::bigint as compute_ns,
    coalesce(moe_ns, 0)::bigint as moe_ns,
    coalesce(transfer_ns, 0)::bigint as transfer_ns,
    coalesce(wait_ns, 0)::bigint as wait_ns,
    coalesce(overlap_ns, 0)::bigint as overlap_ns,
    coalesce(exposed_transfer_ns, 0)::bigint as exposed_transfer_ns,
    coalesce(exposed_wait_ns, 0)::bigint as exposed_wait_ns,
    coalesce(exposed_unmatched_ns, 0)::bigint as exposed_unmatched_ns,
    coalesce(exposed_copy_ns, 0)::bigint as exposed_copy_ns
from summed;

comment on table main.device_time is
'What each GPU did with its time, by step: unions of intervals, so that nothing counts twice. Grain: one step on one device of one process. Key: (global_pid, device_id, start_ns). Invariant: busy_ns + idle_ns = window_ns; compute_ns + exposed_transfer_ns + exposed_wait_ns + exposed_unmatched_ns + exposed_copy_ns = busy_ns.';
comment on column main.device_time.global_pid is 'Process as nsys serialises it (hardware, VM, pid)';
comment on column main.device_time.process_id is 'Process id on its host, or in its container';
comment on column main.device_time.device_id is 'CUDA ordinal of the GPU, as this process counts';
comment on column main.device_time.step is 'Step (device_steps.step); NULL before the first';
comment on column main.device_time.phase is 'Phase of the step; NULL where none is known';
comment on column main.device_time.start_ns is 'Start of the step on this device, ns since the zero of the capture';
comment on column main.device_time.window_ns is 'Length of the step on this device, ns';
comment on column main.device_time.busy_ns is 'Time in which any kernel or copy ran, ns';
comment on column main.device_time.idle_ns is 'Time in which nothing ran, ns';
comment on column main.device_time.compute_ns is 'Time in which any kernel but communication ran, ns';
comment on column main.device_time.moe_ns is 'The part of compute_ns in which an MoE kernel ran, ns';
comment on column main.device_time.transfer_ns is 'Time in which a matched collective had all its ranks, ns';
comment on column main.device_time.wait_ns is 'Time in which a matched collective waited for its last rank, ns';
comment on column main.device_time.overlap_ns is 'Time in which compute and communication ran together, ns';
comment on column main.device_time.exposed_transfer_ns is 'Transfer with no compute beside it, ns';
comment on column main.device_time.exposed_wait_ns is 'Waiting with neither compute nor transfer beside it, ns';
comment on column main.device_time.exposed_unmatched_ns is 'Communication whose waiting is unknown, with nothing beside it, ns';
comment on column main.device_time.exposed_copy_ns is 'Copies and fills with nothing beside them, ns';
