create view main.matched_collectives as
with counted as (
    select
        name_id,
        global_pid,
        device_id,
        count(*) as launches
    from main.collectives
    group by name_id, global_pid, device_id
),

-- Ranks that launched different numbers cannot be paired by order: none is guessed.
pairable as (
    select name_id
    from counted
    group by name_id
    having min(launches) = max(launches) and count(*) > 1
),

ordered as (
    select
        *,
        row_number() over (
            partition by name_id, global_pid, device_id
            order by start_ns, dur_ns
        ) - 1 as ordinal
    from main.collectives
),

meetings as (
    select
        ordered.name_id,
        ordered.ordinal,
        max(ordered.start_ns) as last_arrival_ns,
        min(ordered.end_ns) as first_end_ns
    from ordered
    inner join pairable on ordered.name_id = pairable.name_id
    group by ordered.name_id, ordered.ordinal
    -- Ranks meet in a collective: kernels that never overlap are not one.
    having max(ordered.start_ns) < min(ordered.end_ns)
)

select
    ordered.kernel_id,
    ordered.global_pid,
    ordered.process_id,
    ordered.device_id,
    ordered.name_id,
    ordered.function,
    ordered.collective,
    ordered.data_type,
    ordered.ordinal,
    meetings.name_id is not null as is_matched,
    ordered.start_ns,
    ordered.end_ns,
    ordered.dur_ns,
    meetings.last_arrival_ns - ordered.start_ns as wait_ns,
    meetings.first_end_ns - meetings.last_arrival_ns as transfer_ns,
    meetings.last_arrival_ns = ordered.start_ns as is_last
from ordered
left join meetings
    on ordered.name_id = meetings.name_id and ordered.ordinal = meetings.ordinal;

comment on view main.matched_collectives is
'Communication kernels paired across ranks, by kernel name and order. Grain: one kernel execution on one GPU. Key: kernel_id. Invariant: the rows of collectives; wait_ns + transfer_ns <= dur_ns where matched.';
comment on column main.matched_collectives.kernel_id is 'Row number in CUPTI_ACTIVITY_KIND_KERNEL';
comment on column main.matched_collectives.global_pid is 'Process as nsys serialises it (hardware, VM, pid)';
comment on column main.matched_collectives.process_id is 'Process id on its host, or in its container';
comment on column main.matched_collectives.device_id is 'CUDA ordinal of the GPU, as this process counts';
comment on column main.matched_collectives.name_id is 'Number of the kernel''s name';
comment on column main.matched_collectives.function is 'Function component of the kernel''s name';
comment on column main.matched_collectives.collective is 'all_reduce, all_gather, reduce_scatter, broadcast, reduce, send_recv, all_to_all or other';
comment on column main.matched_collectives.data_type is 'Element type by the name; NULL where the name has none';
comment on column main.matched_collectives.ordinal is 'Place in the order of the rank''s kernels of this name, from 0';
comment on column main.matched_collectives.is_matched is 'Whether every rank launched as many of this name, and this one overlaps its peers';
comment on column main.matched_collectives.start_ns is 'Start, ns since the zero of the capture: when this rank arrived';
comment on column main.matched_collectives.end_ns is 'End, ns since the zero of the capture';
comment on column main.matched_collectives.dur_ns is 'Duration, ns';
comment on column main.matched_collectives.wait_ns is 'Last arrival less own start, ns; NULL where not matched';
comment on column main.matched_collectives.transfer_ns is 'First end less last arrival, ns; NULL where not matched';
comment on column main.matched_collectives.is_last is 'Whether this rank arrived last; NULL where not matched';
