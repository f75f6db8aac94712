create view staging.stg_diagnostics as
select
    case severity when 1 then 'info' when 2 then 'warning' when 3 then 'error' else 'verbose' end
        as severity,
    text,
    count(*) as times
from nsys.DIAGNOSTIC_EVENT
group by severity, text;

comment on view staging.stg_diagnostics is
'What nsys said, once each. Grain: one message. Key: (severity, text).';
