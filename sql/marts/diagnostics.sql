create view main.diagnostics as
select
    severity,
    text,
    times
from staging.stg_diagnostics
where severity in ('warning', 'error');

comment on view main.diagnostics is
'Warnings and errors that nsys left about the capture. Grain: one message. Key: (severity, text). Invariant: times add up to the warnings and errors of DIAGNOSTIC_EVENT.';
comment on column main.diagnostics.severity is 'warning or error';
comment on column main.diagnostics.text is 'The message, as nsys wrote it';
comment on column main.diagnostics.times is 'How often: once a process, mostly';
