create view main.slice_work as
with passes as (
    select
        phase,
        max(blocks) as blocks,
        -- Ranks begin a pass at slightly different times: its middle says which slice it is.
        (min(start_ns) + max(start_ns)) // 2 as middle_ns
    from main.moe_launches
    group by
        global_pid,
        device_id,
        step,
        pass,
        phase,
        case when step is null and pass is null then kernel_id end
),

together as (
    select
        -- What runs before the first slice is in it.
        coalesce(slices.slice, 0) as slice,
        case count(distinct passes.phase) filter (where passes.phase != 'dummy')
            when 0 then any_value(passes.phase)
            when 1 then min(passes.phase) filter (where passes.phase != 'dummy')
            else 'mixed'
        end as phase,
        max(passes.blocks) as blocks
    from passes
    asof left join main.slices as slices on passes.middle_ns >= slices.start_ns
    group by coalesce(slices.slice, 0)
)

select
    slices.slice,
    slices.start_ns,
    coalesce(together.phase, slices.phase) as phase,
    together.blocks
from main.slices as slices
left join together on slices.slice = together.slice;

comment on view main.slice_work is
'What all ranks had to do in each slice of the run: a rank that meets others is as slow as what they have to do. Grain: one slice. Key: slice. Invariant: the rows of slices.';
comment on column main.slice_work.slice is 'Slice (slices.slice)';
comment on column main.slice_work.start_ns is 'Start of the slice, ns since the zero of the capture';
comment on column main.slice_work.phase is 'Phase of the ranks together: mixed where they are in different ones, dummy where none has requests; that of the slice where no MoE kernel ran; NULL where none is known';
comment on column main.slice_work.blocks is 'Largest grid of a MoE kernel on any rank, blocks; NULL where none ran';
