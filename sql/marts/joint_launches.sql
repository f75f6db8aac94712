create view main.joint_launches as
-- DuckDB 1.5 ends the process over an ASOF join of a join to a bare table: tables get a name first.
with events as (
    select
        global_pid,
        device_id,
        rank,
        coalesce(phase, 'unattributed') as phase,
        -- A step begins on one device a little before another: its middle says which slice it is.
        start_ns + dur_ns // 2 as middle_ns,
        dur_ns
    from main.moe_launches
),

cuts as (
    select
        start_ns,
        coalesce(phase, 'unattributed') as phase
    from main.slice_work
)

select
    events.global_pid,
    events.device_id,
    events.rank,
    case
        -- Of a rank that does nothing of the model, or nobody knows what, the phase is its own.
        when events.phase in ('prefill', 'decode', 'mixed', 'dummy')
            then coalesce(cuts.phase, events.phase)
        else events.phase
    end as phase,
    events.dur_ns
from events
asof left join cuts on events.middle_ns >= cuts.start_ns;

comment on view main.joint_launches is
'MoE kernels in the phase of all ranks together (slice_work), as cells have it: ranks that meet are as slow as what they have to do together. Grain: one kernel execution on a GPU. Key: none. Invariant: the rows of moe_launches.';
comment on column main.joint_launches.global_pid is 'Process as nsys serialises it (hardware, VM, pid)';
comment on column main.joint_launches.device_id is 'CUDA ordinal of the GPU, as this process counts';
comment on column main.joint_launches.rank is 'Number of the rank, from 0 (moe_ranks)';
comment on column main.joint_launches.phase is 'Phase of the slice in which its middle lies; its own where that is idle, or not known; unattributed where none is known';
comment on column main.joint_launches.dur_ns is 'Duration, ns';
