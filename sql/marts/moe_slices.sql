create view main.moe_slices as
-- DuckDB 1.5 ends the process over an ASOF join of a join to a bare table: tables get a name first.
with events as (
    select
        start_ns,
        dur_ns
    from main.moe_launches
),

cuts as (
    select
        slice,
        start_ns
    from main.slices
),

placed as (
    select
        -- What starts before all of them is in the first.
        coalesce(cuts.slice, 0) as slice,
        events.dur_ns
    from events
    asof left join cuts on events.start_ns >= cuts.start_ns
)

select
    slice,
    count(*) as launches,
    sum(dur_ns)::bigint as dur_ns,
    sum(dur_ns::hugeint * dur_ns)::double as squares
from placed
group by slice;

comment on view main.moe_slices is
'What MoE kernels took in each slice of the run, over all GPUs. Grain: one slice with at least one of them. Key: slice. Invariant: the sums of moe_launches.';
comment on column main.moe_slices.slice is 'Slice in which they start (slices.slice)';
comment on column main.moe_slices.launches is 'MoE kernels';
comment on column main.moe_slices.dur_ns is 'Their durations, ns';
comment on column main.moe_slices.squares is 'The squares of their durations added up, ns²: what a standard deviation needs';
