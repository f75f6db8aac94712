create view main.moe_cell_places as
select
    ordinal as cell,
    min(step) as step,
    case
        -- The slowest rank decides, as it does for the cell's time.
        when bool_or(phase_source = 'duration') then arg_max(phase, dur_ns)
        -- A rank without requests keeps step with others that have some.
        when count(*) filter (where phase = 'dummy') = count(*) then 'dummy'
        when count(distinct phase) filter (where phase != 'dummy') = 1
            then min(phase) filter (where phase != 'dummy')
        when count(*) filter (where phase != 'dummy') > 0 then 'mixed'
    end as phase,
    min(layer) as layer,
    min(gemm) as gemm
from main.phased_launches
group by ordinal;

comment on view main.moe_cell_places is
'Where a cell stands in the model and the schedule; apart from moe_cells, since it takes the API calls and the ranges to know. Grain: one cell. Key: cell.';
comment on column main.moe_cell_places.cell is 'The cell (moe_cells.cell)';
comment on column main.moe_cell_places.step is 'Step (the lowest number among ranks); NULL where none is known';
comment on column main.moe_cell_places.phase is 'Phase of the step; mixed where ranks of one cell are in different phases; dummy where none has requests; by duration as phased_launches tells it; NULL where none is known';
comment on column main.moe_cell_places.layer is 'MoE layer, from 0; NULL where it is not sure';
comment on column main.moe_cell_places.gemm is 'w13 or w2';
