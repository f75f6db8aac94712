-- UTC of t = 0 (from schema 2.9.1 on).
create table nsys.TARGET_INFO_SESSION_START_TIME (
    utcEpochNs bigint
);
