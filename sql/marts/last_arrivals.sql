create view main.last_arrivals as
select
    global_pid,
    process_id,
    device_id,
    name_id,
    communicator,
    ordinal,
    start_ns,
    is_last,
    margin_ns
from main.matched_collectives
where is_last;

comment on view main.last_arrivals is
'The ranks that others waited for. Grain: one matched collective on one rank that arrived last. Key: (global_pid, device_id, name_id, communicator, ordinal). Invariant: rows of matched_collectives.';
comment on column main.last_arrivals.global_pid is 'Process as nsys serialises it (hardware, VM, pid); NULL where the export has none';
comment on column main.last_arrivals.process_id is 'Process id on its host, or in its container';
comment on column main.last_arrivals.device_id is 'CUDA ordinal of the GPU, as this process counts';
comment on column main.last_arrivals.name_id is 'Number of the kernel''s name: equal exactly where the name is';
comment on column main.last_arrivals.communicator is 'Number of the ranks that meet, from 0';
comment on column main.last_arrivals.ordinal is 'Place in the order of the rank''s kernels of this name and communicator, from 0: equal ones meet';
comment on column main.last_arrivals.start_ns is 'Start, ns since the zero of the capture: when this rank arrived';
comment on column main.last_arrivals.is_last is 'Always true';
comment on column main.last_arrivals.margin_ns is 'How much later it came than the one before it, ns';
