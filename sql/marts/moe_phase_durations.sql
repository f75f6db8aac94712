create view main.moe_phase_durations as
select
    phase,
    dur_ns,
    count(*) as launches
from main.phased_launches
group by phase, dur_ns;

comment on view main.moe_phase_durations is
'How many MoE kernels in each phase took how long: what medians and percentiles need. Grain: one duration in one phase. Key: (phase, dur_ns). Invariant: launches add up to the rows of moe_launches.';
comment on column main.moe_phase_durations.phase is 'Phase of the step (phased_launches.phase); NULL where none is known';
comment on column main.moe_phase_durations.dur_ns is 'Duration, ns';
comment on column main.moe_phase_durations.launches is 'MoE kernels that took as long';
