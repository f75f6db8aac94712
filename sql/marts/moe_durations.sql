create view main.moe_durations as
select
    rank,
    dur_ns,
    count(*) as launches
from staging.stg_moe_launches
group by rank, dur_ns;

comment on view main.moe_durations is
'How many MoE kernels of each rank took how long: what medians and percentiles need. Grain: one duration of one rank. Key: (rank, dur_ns). Invariant: launches add up to the rows of moe_kernels.';
comment on column main.moe_durations.rank is 'Number of the rank, from 0 (moe_ranks)';
comment on column main.moe_durations.dur_ns is 'Duration, ns';
comment on column main.moe_durations.launches is 'MoE kernels that took as long';
