create view main.profiler_overhead as
with worked as (
    select
        min(start_ns) as first_ns,
        max(end_ns) as last_ns
    from staging.stg_work
),

ordered as (
    select
        *,
        row_number() over (
            partition by global_tid, origin
            order by start_ns asc, end_ns desc, kind asc
        ) as place,
        max(end_ns) over (
            partition by global_tid, origin
            order by start_ns asc, end_ns desc, kind asc
            rows between unbounded preceding and 1 preceding
        ) as covered_ns
    from staging.stg_overheads
),

-- They nest: what an outer one holds already adds nothing.
added as (
    select
        *,
        greatest(start_ns, least(coalesce(covered_ns, start_ns), end_ns)) as from_ns
    from ordered
)

select
    added.global_tid,
    added.global_pid,
    added.process_id,
    added.origin,
    added.place,
    added.kind,
    added.start_ns,
    added.end_ns,
    added.end_ns - added.start_ns as dur_ns,
    added.end_ns - added.from_ns as added_ns,
    coalesce(
        greatest(least(added.end_ns, worked.last_ns) - greatest(added.from_ns, worked.first_ns), 0),
        0
    ) as in_window_ns
from added
cross join worked;

comment on view main.profiler_overhead is
'Overheads that nsys and CUPTI recorded of themselves. The cost that tracing adds to every call is not among them. Grain: one recorded overhead. Key: (global_tid, origin, place). Invariant: added_ns adds up to the time that a thread spent in overheads of one origin.';
comment on column main.profiler_overhead.global_tid is 'Thread, as nsys serialises it';
comment on column main.profiler_overhead.global_pid is 'Process as nsys serialises it (hardware, VM, pid)';
comment on column main.profiler_overhead.process_id is 'Process id on its host, or in its container';
comment on column main.profiler_overhead.origin is 'profiler, or cuda: compiling, loading of modules and functions, and full command buffers, which happen without nsys too';
comment on column main.profiler_overhead.place is 'Place in the order of the thread and origin, from 1';
comment on column main.profiler_overhead.kind is 'What it was, in nsys''s words';
comment on column main.profiler_overhead.start_ns is 'Start, ns since the zero of the capture';
comment on column main.profiler_overhead.end_ns is 'End, ns since the zero of the capture';
comment on column main.profiler_overhead.dur_ns is 'Duration, ns; others may lie inside it';
comment on column main.profiler_overhead.added_ns is 'What it adds to the time that its thread spent in overheads, ns: nothing where it lies inside another';
comment on column main.profiler_overhead.in_window_ns is 'Part of added_ns between the first start and the last end of work on any GPU, ns';
