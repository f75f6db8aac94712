-- How the file was exported, from schema 3.4.0 on.
create table nsys.META_DATA_EXPORT (
    name varchar,
    value varchar
);
