-- Every process of the host, kernel threads included (from schema 2.9.1 on).
create table nsys.PROCESSES (
    globalPid bigint,
    pid bigint,
    name varchar
);
