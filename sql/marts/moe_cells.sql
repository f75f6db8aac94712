create view main.moe_cells as
with ranks as (
    select
        rank,
        count(*) as launches
    from staging.stg_moe_launches
    group by rank
),

-- Ranks that launched different numbers cannot be paired by order: no cell is guessed then.
paired as (
    select min(launches) = max(launches) as is_paired
    from ranks
)

select
    launches.ordinal as cell,
    count(*) as ranks,
    max(launches.dur_ns) as slowest_ns,
    avg(launches.dur_ns) as mean_ns,
    max(launches.dur_ns) - avg(launches.dur_ns) as excess_ns,
    -- The first rank of those that took as long.
    arg_max(launches.rank, (launches.dur_ns::hugeint << 16) - launches.rank) as slowest_rank,
    min(launches.start_ns) as start_ns
from staging.stg_moe_launches as launches
cross join paired
where paired.is_paired
group by launches.ordinal;

comment on view main.moe_cells is
'One MoE product of one layer in one step, across ranks: what all of them wait for is its slowest. Grain: one cell. Key: cell. Invariant: mean_ns + excess_ns = slowest_ns; no rows where ranks launched different numbers of MoE kernels.';
comment on column main.moe_cells.cell is 'Place in the order of every rank''s MoE kernels, from 0 (moe_launches.ordinal)';
comment on column main.moe_cells.ranks is 'Ranks of the cell';
comment on column main.moe_cells.slowest_ns is 'Duration on the slowest rank, ns';
comment on column main.moe_cells.mean_ns is 'Mean duration over ranks, ns';
comment on column main.moe_cells.excess_ns is 'Slowest less mean, ns: what balance could save';
comment on column main.moe_cells.slowest_rank is 'Rank of the slowest (moe_launches.rank)';
comment on column main.moe_cells.start_ns is 'First start over ranks, ns since the zero of the capture';
