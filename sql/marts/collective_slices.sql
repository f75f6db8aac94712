create view main.collective_slices as
-- DuckDB 1.5 ends the process over an ASOF join of a join to a bare table: tables get a name first.
with events as (
    select
        name_id,
        collective,
        start_ns,
        dur_ns,
        wait_ns,
        transfer_ns
    from main.matched_collectives
),

cuts as (
    select
        slice,
        start_ns
    from main.slices
),

placed as (
    select
        events.name_id,
        events.collective,
        events.dur_ns,
        events.wait_ns,
        events.transfer_ns,
        -- What starts before all of them is in the first.
        coalesce(cuts.slice, 0) as slice
    from events
    asof left join cuts on events.start_ns >= cuts.start_ns
)

select
    slice,
    name_id,
    collective,
    count(*) as launches,
    sum(dur_ns)::bigint as dur_ns,
    sum(wait_ns)::bigint as wait_ns,
    sum(transfer_ns)::bigint as transfer_ns
from placed
group by slice, name_id, collective;

comment on view main.collective_slices is
'What communication took in each slice of the run, over all GPUs. Grain: one kernel name in one slice. Key: (slice, name_id). Invariant: the sums of matched_collectives.';
comment on column main.collective_slices.slice is 'Slice in which they start (slices.slice)';
comment on column main.collective_slices.name_id is 'Number of the kernel''s name: equal exactly where the name is';
comment on column main.collective_slices.collective is 'all_reduce, all_gather, reduce_scatter, broadcast, reduce, send_recv, all_to_all or other';
comment on column main.collective_slices.launches is 'Communication kernels';
comment on column main.collective_slices.dur_ns is 'Their durations, ns';
comment on column main.collective_slices.wait_ns is 'Their waiting for the last rank, ns; NULL where none is matched';
comment on column main.collective_slices.transfer_ns is 'Their transfer, ns; NULL where none is matched';
