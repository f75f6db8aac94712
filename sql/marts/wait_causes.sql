create view main.wait_causes as
select
    waits.global_pid,
    waits.process_id,
    waits.device_id,
    steps.phase,
    count(*) as collectives,
    sum(waits.wait_ns)::bigint as wait_ns,
    sum(waits.moe_ns)::bigint as moe_ns,
    sum(waits.other_kernels_ns)::bigint as other_kernels_ns,
    sum(waits.host_ns)::bigint as host_ns,
    sum(waits.other_gap_ns)::bigint as other_gap_ns,
    sum(waits.previous_end_ns)::bigint as previous_end_ns,
    sum(waits.residual_ns)::bigint as residual_ns
from main.wait_ledger as waits
left join main.collective_steps as steps on waits.kernel_id = steps.kernel_id
group by waits.global_pid, waits.process_id, waits.device_id, steps.phase;

comment on view main.wait_causes is
'Why ranks waited, summed. Grain: one phase on one device of one process that waited. Key: (global_pid, device_id, phase). Invariant: the sums of wait_ledger; moe_ns + other_kernels_ns + host_ns + other_gap_ns + previous_end_ns + residual_ns = wait_ns.';
comment on column main.wait_causes.global_pid is 'Process as nsys serialises it (hardware, VM, pid); NULL where the export has none';
comment on column main.wait_causes.process_id is 'Process id on its host, or in its container';
comment on column main.wait_causes.device_id is 'CUDA ordinal of the GPU, as this process counts';
comment on column main.wait_causes.phase is 'Phase of the step that launched the waiting kernels; NULL where none is known';
comment on column main.wait_causes.collectives is 'Waits (wait_ledger)';
comment on column main.wait_causes.wait_ns is 'Their waiting, ns';
comment on column main.wait_causes.moe_ns is 'MoE kernels: how much longer the last rank''s took, ns';
comment on column main.wait_causes.other_kernels_ns is 'Other kernels and copies: how much longer the last rank''s took, ns';
comment on column main.wait_causes.host_ns is 'Gaps in which the host had not finished the launch: how much longer on the last rank, ns';
comment on column main.wait_causes.other_gap_ns is 'Other gaps: how much longer on the last rank, ns';
comment on column main.wait_causes.previous_end_ns is 'How much later the last rank''s previous matched collective ended, ns';
comment on column main.wait_causes.residual_ns is 'What these do not explain, ns';
