create view main.moe_cell_durations as
with cells as (
    select
        gemm,
        ordinal,
        max(dur_ns) as slowest_ns
    from main.moe_launches
    group by gemm, ordinal
)

select
    gemm,
    slowest_ns,
    count(*) as cells
from cells
group by gemm, slowest_ns;

comment on view main.moe_cell_durations is
'How many cells took how long on their slowest rank, ranks paired or not. Grain: one duration of one product. Key: (gemm, slowest_ns). Invariant: cells add up to the places in the order of MoE kernels (moe_launches.ordinal).';
comment on column main.moe_cell_durations.gemm is 'w13 or w2';
comment on column main.moe_cell_durations.slowest_ns is 'Duration on the slowest rank, ns';
comment on column main.moe_cell_durations.cells is 'Cells that took as long';
