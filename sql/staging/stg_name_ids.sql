create table staging.stg_name_ids as
select
    names.string_id,
    functions.name_id::integer as name_id
from staging.stg_kernel_names as names
inner join nsysmoe.kernel_functions as functions on names.name = functions.name;

comment on table staging.stg_name_ids is
'Which name of kernel_functions each string id stands for. Kept: the ids that kernels have are otherwise looked for among all of them, in each range of stg_work again. Grain: one string id. Key: string_id.';
