create view staging.stg_grid_phases as
-- Each size counts once, however often it was launched: a run is nearly all decode, and weighted
-- by launches the split would fall between two sizes of decode.
with sizes as (
    select distinct
        blocks,
        ln(blocks) as size
    from staging.stg_moe_products
    where gemm = 'w13' and blocks > 0 and not exists (select 1 from staging.stg_stepping_processes)
),

running as (
    select
        blocks,
        count(*) over below as low_n,
        sum(size) over below as low_sum,
        count(*) over () as all_n,
        sum(size) over () as all_sum
    from sizes
    window below as (order by blocks rows between unbounded preceding and current row)
),

-- Otsu's threshold: the split of log grid sizes with the largest variance between its sides.
split as (
    select
        blocks,
        low_sum / low_n as low_size,
        (all_sum - low_sum) / (all_n - low_n) as high_size,
        low_n * (all_n - low_n) * pow(low_sum / low_n - (all_sum - low_sum) / (all_n - low_n), 2)
            as spread
    from running
    where low_n < all_n
)

select
    arg_max(blocks, spread) as largest_decode_blocks,
    arg_max(high_size - low_size, spread) as log_ratio
from split
-- Sides that differ by less than a factor of two are one phase.
having arg_max(high_size - low_size, spread) >= ln(2);

comment on view staging.stg_grid_phases is
'Where grid sizes of MoE kernels fall apart into few tokens (decode) and many (prefill, or both mixed); no row where they do not, or where ranges tell the steps of API calls. Grain: one trace. Key: none, one row at most.';
