create view main.rearrangements as
with balancing as (
    select count(*) > 0 as is_on
    from main.kernel_classes
    where class = 'eplb'
),

sent as (
    select
        moved.global_pid,
        moved.device_id,
        moved.start_ns,
        moved.end_ns,
        moved.dur_ns,
        moved.wait_ns,
        -- Sends that no other send of any rank reaches into begin something new.
        moved.start_ns - max(moved.end_ns) over (
            order by moved.start_ns, moved.end_ns
            rows between unbounded preceding and 1 preceding
        ) as since_ns
    from main.matched_collectives as moved
    cross join balancing
    where moved.collective = 'send_recv' and balancing.is_on
),

typical as (
    select median(since_ns) as since_ns
    from sent
    where since_ns > 0
),

-- Layers move one after the other, a pause between them; the next rearrangement is hundreds of
-- steps away.
grouped as (
    select
        sent.*,
        sum(
            case
                when
                    sent.since_ns is null
                    or sent.since_ns > greatest(50000000, 10 * least(typical.since_ns, 50000000))
                    then 1
                else 0
            end
        ) over (order by sent.start_ns, sent.end_ns) - 1 as rearrangement
    from sent
    cross join typical
),

by_rank as (
    select
        rearrangement,
        global_pid,
        device_id,
        count(*) as transfers,
        sum(dur_ns) as total_ns,
        sum(dur_ns - coalesce(wait_ns, 0)) as moving_ns,
        min(start_ns) as start_ns,
        max(end_ns) as end_ns
    from grouped
    group by rearrangement, global_pid, device_id
)

select
    rearrangement::bigint as rearrangement,
    count(*) as ranks,
    max(transfers) as transfers,
    sum(total_ns)::bigint as total_ns,
    max(moving_ns)::bigint as moving_ns,
    min(start_ns) as start_ns,
    max(end_ns) as end_ns
from by_rank
group by rearrangement;

comment on view main.rearrangements is
'EPLB moving experts'' weights between ranks: SendRecv kernels of a trace in which EPLB''s own kernels run, those close to one another together. Weights that move by copies (gloo) leave no row. Grain: one rearrangement over all ranks. Key: rearrangement.';
comment on column main.rearrangements.rearrangement is 'Number of the rearrangement, from 0 in order of time';
comment on column main.rearrangements.ranks is 'Ranks that sent or received';
comment on column main.rearrangements.transfers is 'SendRecv kernels of the rank that ran most: one for each layer that moved';
comment on column main.rearrangements.total_ns is 'Time of these kernels summed over ranks, ns';
comment on column main.rearrangements.moving_ns is 'Their time on the rank that moved longest, waiting left out, ns';
comment on column main.rearrangements.start_ns is 'First start, ns since the zero of the capture';
comment on column main.rearrangements.end_ns is 'Last end, ns since the zero of the capture';
