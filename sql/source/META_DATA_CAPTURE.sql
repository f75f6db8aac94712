-- How the capture was made. Only settings are read, by an allow list of names: the table also
-- holds the command line and the whole environment.
create table nsys.META_DATA_CAPTURE (
    name varchar,
    value varchar
);
