create view intervals.activities as
with computing as (
    select
        global_pid,
        device_id,
        case when class = 'moe_gemm' then 'moe' else 'compute' end as kind,
        start_ns,
        end_ns
    from main.kernels
    where class != 'collective'
),

communicating as (
    select
        global_pid,
        device_id,
        is_matched,
        start_ns,
        end_ns,
        start_ns + coalesce(wait_ns, 0) as arrived_ns
    from main.matched_collectives
),

waiting as (
    select
        global_pid,
        device_id,
        'wait' as kind,
        start_ns,
        arrived_ns as end_ns
    from communicating
    where is_matched
),

-- From the last arrival on, the tail of a rank that ends later included.
transferring as (
    select
        global_pid,
        device_id,
        case when is_matched then 'transfer' else 'unmatched' end as kind,
        arrived_ns as start_ns,
        end_ns
    from communicating
),

copying as (
    select
        global_pid,
        device_id,
        'copy' as kind,
        start_ns,
        end_ns
    from staging.stg_copies
)

select * from computing
union all
select * from waiting
union all
select * from transferring
union all
select * from copying;

comment on view intervals.activities is
'What occupies a GPU, by kind: moe, compute, wait, transfer, unmatched (communication whose waiting is unknown), copy. Grain: one stretch of one kernel or copy. Key: none.';
