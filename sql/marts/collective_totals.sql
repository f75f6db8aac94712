create view main.collective_totals as
select
    global_pid,
    process_id,
    device_id,
    name_id,
    is_matched,
    count(*) as launches,
    sum(dur_ns)::bigint as dur_ns,
    sum(wait_ns)::bigint as wait_ns,
    sum(transfer_ns)::bigint as transfer_ns
from main.matched_collectives
group by global_pid, process_id, device_id, name_id, is_matched;

comment on view main.collective_totals is
'What communication took, summed. Grain: one kernel name on one device of one process, paired across ranks or not. Key: (global_pid, device_id, name_id, is_matched). Invariant: the sums of matched_collectives.';
comment on column main.collective_totals.global_pid is 'Process as nsys serialises it (hardware, VM, pid); NULL where the export has none';
comment on column main.collective_totals.process_id is 'Process id on its host, or in its container';
comment on column main.collective_totals.device_id is 'CUDA ordinal of the GPU, as this process counts';
comment on column main.collective_totals.name_id is 'Number of the kernel''s name: equal exactly where the name is';
comment on column main.collective_totals.is_matched is 'Whether they are paired across ranks';
comment on column main.collective_totals.launches is 'Communication kernels';
comment on column main.collective_totals.dur_ns is 'Their durations, ns';
comment on column main.collective_totals.wait_ns is 'Their waiting for the last rank, ns; NULL where none is matched';
comment on column main.collective_totals.transfer_ns is 'Their transfer, ns; NULL where none is matched';
