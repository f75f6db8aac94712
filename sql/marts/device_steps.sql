create table main.device_steps as
with spans as (
    select
        global_pid,
        any_value(process_id) as process_id,
        device_id,
        min(start_ns) as first_ns,
        max(end_ns) as last_ns
    from staging.stg_kernels
    group by global_pid, device_id
),

ranged as (
    select
        streams.global_pid,
        streams.device_id,
        work.step_place,
        min(work.start_ns) as start_ns
    from staging.stg_work as work
    inner join staging.stg_streams as streams on work.stream = streams.stream
    where work.kernel_id is not null and work.step_place is not null
    group by streams.global_pid, streams.device_id, work.step_place
),

-- Without ranges, and in passes outside any (a data-parallel rank without requests keeps step with
-- the others), the first MoE kernel has to do.
counted as (
    select
        global_pid,
        device_id,
        step,
        arg_min(phase, start_ns) as phase,
        min(start_ns) as start_ns
    from main.moe_launches
    where phase_source is distinct from 'nvtx' and pass is not null
    group by global_pid, device_id, step, pass
),

begun as (
    select
        ranged.global_pid,
        ranged.device_id,
        steps.step,
        steps.phase,
        ranged.start_ns
    from ranged
    inner join staging.stg_numbered_steps as steps on ranged.step_place = steps.place
    union all
    select
        global_pid,
        device_id,
        step,
        phase,
        start_ns
    from counted
),

-- What runs before the first step belongs to none.
opened as (
    select
        global_pid,
        device_id,
        step,
        phase,
        start_ns
    from begun
    union all
    select
        spans.global_pid,
        spans.device_id,
        null as step,
        null as phase,
        spans.first_ns as start_ns
    from spans
    left join begun
        on
            spans.global_pid is not distinct from begun.global_pid
            and spans.device_id = begun.device_id
            and spans.first_ns = begun.start_ns
    where begun.start_ns is null
),

closed as (
    select
        opened.global_pid,
        spans.process_id,
        opened.device_id,
        opened.step,
        opened.phase,
        opened.start_ns,
        coalesce(
            lead(opened.start_ns) over (
                partition by opened.global_pid, opened.device_id
                -- Steps that begin at one instant have an order too, or times would change hands.
                order by opened.start_ns, opened.step nulls first, opened.phase
            ),
            spans.last_ns
        ) as end_ns
    from opened
    inner join spans
        on
            opened.global_pid is not distinct from spans.global_pid
            and opened.device_id = spans.device_id
)

select
    global_pid,
    process_id,
    device_id,
    step,
    phase,
    start_ns,
    end_ns,
    end_ns - start_ns as wall_ns
from closed;

comment on table main.device_steps is
'The time of each GPU, cut where a step''s first kernel starts. Grain: one step on one device of one process. Key: (global_pid, device_id, start_ns). Invariant: the rows of a device touch one another and cover its kernels from the first start to the last end.';
comment on column main.device_steps.global_pid is 'Process as nsys serialises it (hardware, VM, pid)';
comment on column main.device_steps.process_id is 'Process id on its host, or in its container';
comment on column main.device_steps.device_id is 'CUDA ordinal of the GPU, as this process counts';
comment on column main.device_steps.step is 'Step of the process (steps.step); without ranges, as moe_launches counts; NULL before the first, and in passes outside any range';
comment on column main.device_steps.phase is 'Phase of the step; NULL where none is known';
comment on column main.device_steps.start_ns is 'Start of the step''s first kernel, ns since the zero of the capture';
comment on column main.device_steps.end_ns is 'Start of the next step''s first kernel, or the last end, ns since the zero of the capture';
comment on column main.device_steps.wall_ns is 'Time from start to end, ns';
