-- The same under its name up to schema 3.1.7.
create table nsys.EXPORT_META_DATA (
    name varchar,
    value varchar
);
