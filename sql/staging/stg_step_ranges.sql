create view staging.stg_step_ranges as
with labelled as (
    select
        events.globalTid as global_tid,
        events.globalTid - (events.globalTid & 16777215) as global_pid,
        events.start as start_ns,
        events."end" as end_ns,
        coalesce(events.text, strings.value) as label
    from nsys.NVTX_EVENTS as events
    left join nsys.StringIds as strings on events.textId = strings.id
)

-- execute_context_{requests}({tokens})_generation_{requests}({tokens})
select
    global_tid,
    global_pid,
    start_ns,
    end_ns,
    try_cast(regexp_extract(label, '^execute_context_(\d+)\(', 1) as bigint) as context_requests,
    try_cast(regexp_extract(label, '^execute_context_\d+\((\d+)\)', 1) as bigint)
        as context_tokens,
    try_cast(regexp_extract(label, '_generation_(\d+)\(\d+\)$', 1) as bigint)
        as generation_requests,
    try_cast(regexp_extract(label, '_generation_\d+\((\d+)\)$', 1) as bigint)
        as generation_tokens
from labelled
where regexp_matches(label, '^execute_context_\d+\(\d+\)_generation_\d+\(\d+\)$');

comment on view staging.stg_step_ranges is
'vLLM''s own ranges around a step of the engine (0.15.1 on, with the CUDA profiler). Grain: one range. Key: (global_tid, start_ns).';
