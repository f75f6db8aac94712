create view main.moe_grids as
select
    phase,
    blocks,
    count(*) as launches
from main.phased_launches
group by phase, blocks;

comment on view main.moe_grids is
'How many MoE kernels in each phase had a grid of how many blocks: that tells what work they had. Grain: one size of grid in one phase. Key: (phase, blocks). Invariant: launches add up to the rows of moe_launches.';
comment on column main.moe_grids.phase is 'Phase of the step (phased_launches.phase); NULL where none is known';
comment on column main.moe_grids.blocks is 'Blocks in the grid; NULL where the export has none';
comment on column main.moe_grids.launches is 'MoE kernels with as many';
