create table staging.stg_numbered_steps as
select
    (row_number() over (order by global_tid, start_ns, step))::integer as place,
    global_tid,
    step,
    phase,
    start_ns,
    end_ns
from main.steps;

comment on table staging.stg_numbered_steps is
'Steps of vLLM''s engine numbered from 1, thread by thread in order of time (place). Grain: one step of one process. Key: place. Invariant: the rows of steps.';
