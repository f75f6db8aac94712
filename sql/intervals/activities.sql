create view intervals.activities as
with computing as (
    select
        global_pid,
        device_id,
        case when class = 'moe_gemm' then 0 else 1 end as place,
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
        2 as place,
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
        case when is_matched then 3 else 4 end as place,
        arrived_ns as start_ns,
        end_ns
    from communicating
),

copying as (
    select
        global_pid,
        device_id,
        5 as place,
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
'What occupies a GPU; place says what: 0 MoE kernel, 1 other kernel, 2 waiting in a collective, 3 its transfer, 4 communication whose waiting is unknown, 5 copy or fill. Grain: one stretch of one kernel or copy. Key: none.';
