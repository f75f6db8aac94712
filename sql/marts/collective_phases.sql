create view main.collective_phases as
select
    events.global_pid,
    events.process_id,
    events.device_id,
    events.name_id,
    events.collective,
    events.data_type,
    events.communicator,
    events.is_matched,
    steps.phase,
    count(*) as launches,
    sum(events.dur_ns)::bigint as dur_ns,
    sum(events.wait_ns)::bigint as wait_ns,
    sum(events.transfer_ns)::bigint as transfer_ns
from main.matched_collectives as events
inner join main.collective_steps as steps on events.kernel_id = steps.kernel_id
group by
    events.global_pid,
    events.process_id,
    events.device_id,
    events.name_id,
    events.collective,
    events.data_type,
    events.communicator,
    events.is_matched,
    steps.phase;

comment on view main.collective_phases is
'What communication took, summed by phase. Grain: one kernel name of one communicator in one phase on one device of one process, paired across ranks or not. Key: (global_pid, device_id, name_id, communicator, is_matched, phase). Invariant: the sums of matched_collectives.';
comment on column main.collective_phases.global_pid is 'Process as nsys serialises it (hardware, VM, pid); NULL where the export has none';
comment on column main.collective_phases.process_id is 'Process id on its host, or in its container';
comment on column main.collective_phases.device_id is 'CUDA ordinal of the GPU, as this process counts';
comment on column main.collective_phases.name_id is 'Number of the kernel''s name: equal exactly where the name is';
comment on column main.collective_phases.collective is 'all_reduce, all_gather, reduce_scatter, broadcast, reduce, send_recv, all_to_all or other';
comment on column main.collective_phases.data_type is 'Element type by the name; NULL where the name has none';
comment on column main.collective_phases.communicator is 'Number of the ranks that meet, from 0; NULL where not matched';
comment on column main.collective_phases.is_matched is 'Whether they are paired across ranks';
comment on column main.collective_phases.phase is 'Phase of the step that launched them; NULL where none is known';
comment on column main.collective_phases.launches is 'Communication kernels';
comment on column main.collective_phases.dur_ns is 'Their durations, ns';
comment on column main.collective_phases.wait_ns is 'Their waiting for the last rank, ns; NULL where none is matched';
comment on column main.collective_phases.transfer_ns is 'Their transfer, ns; NULL where none is matched';
