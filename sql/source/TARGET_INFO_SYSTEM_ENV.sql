-- Properties of the host; only those on the allow list are read.
create table nsys.TARGET_INFO_SYSTEM_ENV (
    name varchar,
    value varchar
);
