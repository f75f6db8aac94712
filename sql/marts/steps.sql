create view main.steps as
select
    global_pid,
    (global_pid >> 24) & 16777215 as process_id,
    global_tid,
    row_number() over (
        partition by global_pid
        order by start_ns asc, global_tid asc, end_ns desc
    ) - 1 as step,
    case
        when context_requests > 0 and generation_requests > 0 then 'mixed'
        when context_requests > 0 then 'prefill'
        when generation_requests > 0 then 'decode'
        else 'idle'
    end as phase,
    context_requests,
    context_tokens,
    generation_requests,
    generation_tokens,
    start_ns,
    end_ns
from staging.stg_step_ranges;

comment on view main.steps is
'Steps of vLLM''s engine, by its NVTX ranges. Grain: one step of one process. Key: (global_pid, step).';
comment on column main.steps.global_pid is 'Process as nsys serialises it (hardware, VM, pid)';
comment on column main.steps.process_id is 'Process id on its host, or in its container';
comment on column main.steps.global_tid is 'Thread that runs the step, as nsys serialises it';
comment on column main.steps.step is 'Number of the step in its process, from 0 in order of time';
comment on column main.steps.phase is 'prefill, decode, mixed (chunked prefill beside decode) or idle (no request)';
comment on column main.steps.context_requests is 'Requests whose prompt is being read';
comment on column main.steps.context_tokens is 'Prompt tokens of the step';
comment on column main.steps.generation_requests is 'Requests that generate';
comment on column main.steps.generation_tokens is 'Generated tokens of the step';
comment on column main.steps.start_ns is 'Start of the range on the CPU, ns since the zero of the capture';
comment on column main.steps.end_ns is 'End of the range on the CPU, ns since the zero of the capture';
