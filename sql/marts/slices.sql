create view main.slices as
with longest as (
    select
        global_pid,
        device_id
    from main.device_steps
    group by global_pid, device_id
    order by sum(wall_ns) desc, device_id asc, global_pid asc nulls first
    limit 1
)

select
    row_number() over (order by spent.start_ns) - 1 as slice,
    spent.step,
    spent.phase,
    spent.start_ns,
    spent.wall_ns
from main.device_steps as spent
inner join longest
    on
        spent.device_id = longest.device_id
        and spent.global_pid is not distinct from longest.global_pid
-- A step that begins where the next one does holds no time.
where spent.wall_ns > 0;

comment on view main.slices is
'The steps of the GPU whose window is longest: they cut the run into slices. Grain: one step of that GPU. Key: slice. Invariant: rows of device_time, worked out without it; they touch one another.';
comment on column main.slices.slice is 'Place in the order of time, from 0';
comment on column main.slices.step is 'Step of the process (steps.step); NULL before the first';
comment on column main.slices.phase is 'Phase of that step; NULL where none is known';
comment on column main.slices.start_ns is 'Start, ns since the zero of the capture';
comment on column main.slices.wall_ns is 'Length, ns';
