create view main.diagnostics as
select
    case severity when 2 then 'warning' when 3 then 'error' end as severity,
    text,
    count(*) as times
from nsys.DIAGNOSTIC_EVENT
where severity in (2, 3)
group by severity, text;

comment on view main.diagnostics is
'Warnings and errors that nsys left about the capture. Grain: one message. Key: (severity, text). Invariant: times add up to the warnings and errors of DIAGNOSTIC_EVENT.';
comment on column main.diagnostics.severity is 'warning or error';
comment on column main.diagnostics.text is 'The message, as nsys wrote it';
comment on column main.diagnostics.times is 'How often: once a process, mostly';
