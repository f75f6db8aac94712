create view main.kernel_classes as
select
    functions.name_id,
    functions.name,
    functions.function,
    functions.class,
    functions.backend,
    functions.role,
    functions.reduction,
    functions.data_type,
    sum(totals.launches)::bigint as launches,
    sum(totals.total_ns)::bigint as total_ns
from staging.stg_kernel_totals as totals
inner join nsysmoe.kernel_functions as functions on totals.name = functions.name
group by all;

comment on view main.kernel_classes is
'The class map applied to the kernels that ran. Grain: one kernel name. Key: name_id. Invariant: launches add up to the rows of kernels.';
comment on column main.kernel_classes.name_id is 'Number of the name';
comment on column main.kernel_classes.name is 'Demangled name; ? where the export lost it';
comment on column main.kernel_classes.function is 'Function component of the name';
comment on column main.kernel_classes.class is 'What the kernel is for; unclassified where no rule matches';
comment on column main.kernel_classes.backend is 'Whose kernel it is';
comment on column main.kernel_classes.role is 'What it does within its class';
comment on column main.kernel_classes.reduction is 'Reduction of a collective, by its name; NULL elsewhere';
comment on column main.kernel_classes.data_type is 'Element type of a reducing collective, by its name; NULL elsewhere';
comment on column main.kernel_classes.launches is 'Executions, all GPUs together';
comment on column main.kernel_classes.total_ns is 'Sum of durations, all GPUs together, ns';
