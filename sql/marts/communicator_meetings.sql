create view main.communicator_meetings as
-- Two ranks may come last at once: the meeting counts once.
with meetings as (
    select distinct
        communicator,
        name_id,
        ordinal
    from main.last_arrivals
)

select
    communicator,
    count(*) as meetings
from meetings
group by communicator;

comment on view main.communicator_meetings is
'How often the ranks of each communicator met. Grain: one communicator. Key: communicator. Invariant: the meetings of matched_collectives.';
comment on column main.communicator_meetings.communicator is 'Number of the ranks that meet, from 0';
comment on column main.communicator_meetings.meetings is 'Collectives that could be paired, each counted once for all its ranks';
