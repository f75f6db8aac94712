create view main.kernel_durations as
select
    functions.name_id,
    durations.dur_ns,
    durations.launches
from staging.stg_kernel_durations as durations
inner join staging.stg_kernel_names as names on durations.string_id = names.string_id
inner join nsysmoe.kernel_functions as functions on names.name = functions.name;

comment on view main.kernel_durations is
'How many kernels of each name took how long: what medians and percentiles need. Grain: one duration of one name as nsys numbers it. Key: none, ids may share a name. Invariant: launches add up to the rows of kernels.';
comment on column main.kernel_durations.name_id is 'Number of the kernel''s name: equal exactly where the name is';
comment on column main.kernel_durations.dur_ns is 'Duration, ns';
comment on column main.kernel_durations.launches is 'Kernel executions that took as long';
