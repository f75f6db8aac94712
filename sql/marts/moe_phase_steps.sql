create view main.moe_phase_steps as
-- Each pair once before they are counted: distinct counts are held in memory.
with launched as (
    select distinct
        rank,
        phase,
        step,
        pass
    from main.phased_launches
)

select
    rank,
    phase,
    count(distinct step) as steps,
    count(distinct pass) as passes
from launched
group by rank, phase;

comment on view main.moe_phase_steps is
'In how many steps and passes each rank launched MoE kernels, phase by phase. Grain: one phase on one rank. Key: (rank, phase). Invariant: a step of which ranks are in one phase counts once.';
comment on column main.moe_phase_steps.rank is 'Number of the rank, from 0 (moe_ranks)';
comment on column main.moe_phase_steps.phase is 'Phase of the step (phased_launches.phase); NULL where none is known';
comment on column main.moe_phase_steps.steps is 'Steps (moe_launches.step); 0 where none is known';
comment on column main.moe_phase_steps.passes is 'Forward passes of the model (moe_launches.pass); 0 where none is known';
