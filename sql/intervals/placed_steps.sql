create table intervals.placed_steps as
select
    global_pid,
    process_id,
    device_id,
    step,
    phase,
    start_ns,
    end_ns,
    row_number() over (
        order by global_pid, device_id, start_ns, end_ns, step nulls first, phase
    ) as place
from main.device_steps;

comment on table intervals.placed_steps is
'The steps of each GPU, numbered from 1 device by device (place). Grain: one step on one device of one process. Key: place. Invariant: the rows of device_steps.';
