create table staging.stg_crowded_calls as
select
    global_tid - (global_tid & 16777215) as global_pid,
    correlation_id >> 5 as block
from staging.stg_calls
where correlation_id is not null and global_tid is not null
group by global_tid - (global_tid & 16777215), correlation_id >> 5
-- A bit for each of the 32: grouped by id, ten million calls would be held to be found alone.
having count(*) > bit_count(bit_or(1::bigint << (correlation_id & 31)));

comment on table staging.stg_crowded_calls is
'Blocks of 32 correlation ids of which some stand for several calls. Grain: one block of one process. Key: (global_pid, block).';
