create view staging.stg_communicators as
select
    communicator,
    -- NCCL's ids are 64 random bits.
    (dense_rank() over (order by communicator))::usmallint as nccl_communicator
from nsysmoe.nccl_ranges
where communicator is not null
group by communicator;

comment on view staging.stg_communicators is
'Communicators that NCCL''s ranges name, numbered. Grain: one communicator. Key: nccl_communicator.';
