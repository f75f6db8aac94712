create view main.silent_gaps as
-- DuckDB 1.5 ends the process over an ASOF join of a join to a bare table: tables get a name first.
with idle as (
    select
        *,
        coalesce(global_pid, -1) as pid
    from main.idle_gaps
),

-- A host gap that began before reaches into an idle one where any until then ends after its start.
silences as (
    select
        coalesce(global_pid, -1) as pid,
        device_id,
        start_ns,
        max(end_ns) over (
            partition by global_pid, device_id
            order by start_ns
        ) as until_ns
    from main.host_gaps
)

select
    idle.global_pid,
    idle.process_id,
    idle.device_id,
    idle.phase,
    idle.start_ns,
    idle.end_ns
from idle
asof inner join silences
    on
        idle.pid = silences.pid
        and idle.device_id = silences.device_id
        and idle.end_ns >= silences.start_ns
where silences.until_ns > idle.start_ns;

comment on view main.silent_gaps is
'Idle gaps of a GPU in which a thread that launches on it launched nothing (host_gaps). Grain: one gap between work on a device. Key: (global_pid, device_id, start_ns). Invariant: rows of idle_gaps.';
comment on column main.silent_gaps.global_pid is 'Process as nsys serialises it (hardware, VM, pid); NULL where the export has none';
comment on column main.silent_gaps.process_id is 'Process id on its host, or in its container';
comment on column main.silent_gaps.device_id is 'CUDA ordinal of the GPU, as this process counts';
comment on column main.silent_gaps.phase is 'Phase of the step in which the gap begins; NULL where none is known';
comment on column main.silent_gaps.start_ns is 'End of the work before it, ns since the zero of the capture';
comment on column main.silent_gaps.end_ns is 'Start of the work after it, ns since the zero of the capture';
