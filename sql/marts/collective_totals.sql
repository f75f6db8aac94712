create view main.collective_totals as
select
    global_pid,
    process_id,
    device_id,
    name_id,
    any_value(function) as function,
    any_value(collective) as collective,
    any_value(data_type) as data_type,
    communicator,
    communicator_source,
    is_matched,
    count(*) as launches,
    sum(dur_ns)::bigint as dur_ns,
    sum(wait_ns)::bigint as wait_ns,
    sum(transfer_ns)::bigint as transfer_ns,
    count(*) filter (where is_last) as arrived_last
from main.matched_collectives
group by
    global_pid, process_id, device_id, name_id, communicator, communicator_source, is_matched;

comment on view main.collective_totals is
'What communication took, summed. Grain: one kernel name of one communicator on one device of one process, paired across ranks or not. Key: (global_pid, device_id, name_id, communicator, is_matched). Invariant: the sums of matched_collectives.';
comment on column main.collective_totals.global_pid is 'Process as nsys serialises it (hardware, VM, pid); NULL where the export has none';
comment on column main.collective_totals.process_id is 'Process id on its host, or in its container';
comment on column main.collective_totals.device_id is 'CUDA ordinal of the GPU, as this process counts';
comment on column main.collective_totals.name_id is 'Number of the kernel''s name: equal exactly where the name is';
comment on column main.collective_totals.function is 'Function component of the kernel''s name';
comment on column main.collective_totals.collective is 'all_reduce, all_gather, reduce_scatter, broadcast, reduce, send_recv, all_to_all or other';
comment on column main.collective_totals.data_type is 'Element type by the name; NULL where the name has none';
comment on column main.collective_totals.communicator is 'Number of the ranks that meet, from 0; NULL where not matched';
comment on column main.collective_totals.communicator_source is 'How the communicator is known: nvtx or overlap; NULL where not matched';
comment on column main.collective_totals.is_matched is 'Whether they are paired across ranks';
comment on column main.collective_totals.launches is 'Communication kernels';
comment on column main.collective_totals.dur_ns is 'Their durations, ns';
comment on column main.collective_totals.wait_ns is 'Their waiting for the last rank, ns; NULL where none is matched';
comment on column main.collective_totals.transfer_ns is 'Their transfer, ns; NULL where none is matched';
comment on column main.collective_totals.arrived_last is 'Of them, those in which this rank arrived last';
