create view main.moe_joint_durations as
select
    phase,
    dur_ns,
    count(*) as launches
from main.joint_launches
group by phase, dur_ns;

comment on view main.moe_joint_durations is
'How many MoE kernels in each phase of all ranks together took how long: what medians and percentiles need. Grain: one duration in one phase. Key: (phase, dur_ns). Invariant: launches add up to the rows of moe_launches.';
comment on column main.moe_joint_durations.phase is 'Phase of all ranks together (joint_launches.phase)';
comment on column main.moe_joint_durations.dur_ns is 'Duration, ns';
comment on column main.moe_joint_durations.launches is 'MoE kernels that took as long';
