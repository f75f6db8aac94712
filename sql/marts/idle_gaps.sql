create view main.idle_gaps as
select
    steps.global_pid,
    steps.process_id,
    steps.device_id,
    steps.step,
    steps.phase,
    gaps.start_ns,
    gaps.end_ns,
    gaps.end_ns - gaps.start_ns as dur_ns,
    gaps.kernel_id,
    case when gaps.kernel_id is null then 'copy' else functions.class end as class,
    coalesce(gaps.blocked_ns, 0) as blocked_ns,
    coalesce(gaps.in_calls_ns - gaps.blocked_ns, 0) as calling_ns,
    -- Before its first call a thread has been in none: clocks may start work before its launch.
    case when gaps.is_launched then gaps.late_ns - coalesce(gaps.in_calls_ns, 0) else 0 end
        as outside_ns,
    gaps.end_ns - gaps.start_ns - gaps.late_ns as launched_ns,
    case when gaps.is_launched then 0 else gaps.end_ns - gaps.start_ns end as unknown_ns
from staging.stg_idle_gaps as gaps
inner join intervals.placed_steps as steps on gaps.step_place = steps.place
left join nsysmoe.kernel_functions as functions on gaps.name_id = functions.name_id;

comment on view main.idle_gaps is
'Time in which a GPU ran nothing, and what the thread that launched the next work did meanwhile. Grain: one gap between work on a device. Key: (global_pid, device_id, start_ns). Invariant: blocked_ns + calling_ns + outside_ns + launched_ns + unknown_ns = dur_ns; summed by step, dur_ns is device_time.idle_ns.';
comment on column main.idle_gaps.global_pid is 'Process as nsys serialises it (hardware, VM, pid)';
comment on column main.idle_gaps.process_id is 'Process id on its host, or in its container';
comment on column main.idle_gaps.device_id is 'CUDA ordinal of the GPU, as this process counts';
comment on column main.idle_gaps.step is 'Step in whose time the gap lies (device_steps.step)';
comment on column main.idle_gaps.phase is 'Phase of that step; NULL where none is known';
comment on column main.idle_gaps.start_ns is 'Start: everything before on the device has ended, ns since the zero of the capture';
comment on column main.idle_gaps.end_ns is 'End: the next work starts, ns since the zero of the capture';
comment on column main.idle_gaps.dur_ns is 'Duration, ns';
comment on column main.idle_gaps.kernel_id is 'The kernel that ends the gap; NULL for a copy';
comment on column main.idle_gaps.class is 'Class of what ends the gap; copy for copies and fills';
comment on column main.idle_gaps.blocked_ns is 'Launch not yet done, its thread inside a synchronising call, ns';
comment on column main.idle_gaps.calling_ns is 'Launch not yet done, its thread inside another CUDA call, ns';
comment on column main.idle_gaps.outside_ns is 'Launch not yet done, its thread outside any CUDA call, ns';
comment on column main.idle_gaps.launched_ns is 'Launched, and not yet started, ns';
comment on column main.idle_gaps.unknown_ns is 'The call that launched the next work was not recorded, ns';
