create view main.idle_causes as
select
    global_pid,
    process_id,
    device_id,
    phase,
    count(*) as gaps,
    sum(dur_ns)::bigint as dur_ns,
    sum(blocked_ns)::bigint as blocked_ns,
    sum(calling_ns)::bigint as calling_ns,
    sum(outside_ns)::bigint as outside_ns,
    sum(launched_ns)::bigint as launched_ns,
    sum(unknown_ns)::bigint as unknown_ns
from main.idle_gaps
group by global_pid, process_id, device_id, phase;

comment on view main.idle_causes is
'What launching threads did while GPUs ran nothing, summed. Grain: one phase on one device of one process. Key: (global_pid, device_id, phase). Invariant: the sums of idle_gaps; blocked_ns + calling_ns + outside_ns + launched_ns + unknown_ns = dur_ns.';
comment on column main.idle_causes.global_pid is 'Process as nsys serialises it (hardware, VM, pid); NULL where the export has none';
comment on column main.idle_causes.process_id is 'Process id on its host, or in its container';
comment on column main.idle_causes.device_id is 'CUDA ordinal of the GPU, as this process counts';
comment on column main.idle_causes.phase is 'Phase of the step in which the gap begins; NULL where none is known';
comment on column main.idle_causes.gaps is 'Gaps (idle_gaps)';
comment on column main.idle_causes.dur_ns is 'Their durations, ns';
comment on column main.idle_causes.blocked_ns is 'The thread was inside a call that waits for the GPU, ns';
comment on column main.idle_causes.calling_ns is 'The thread was inside other calls, the launch itself included, ns';
comment on column main.idle_causes.outside_ns is 'The thread was in no call, ns';
comment on column main.idle_causes.launched_ns is 'The launch was done, and the GPU had not begun, ns';
comment on column main.idle_causes.unknown_ns is 'Gaps before work whose launch the export does not hold, ns';
