create view staging.stg_kernel_durations as
select
    string_id,
    dur_ns,
    count(*) as launches
from staging.stg_kernels
group by string_id, dur_ns;

comment on view staging.stg_kernel_durations is
'How many kernels of each name took how long. Grain: one duration of one string id. Key: (string_id, dur_ns). Invariant: launches add up to the rows of stg_kernels.';
comment on column staging.stg_kernel_durations.string_id is 'Id of the demangled name';
comment on column staging.stg_kernel_durations.dur_ns is 'Duration, ns';
comment on column staging.stg_kernel_durations.launches is 'Kernel executions that took as long';
