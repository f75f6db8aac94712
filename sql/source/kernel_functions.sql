-- The class map applied: one row per distinct kernel name. Filled by nsysmoe.classes, since taking
-- a C++ name apart needs a parser that SQL does not have.
create table nsysmoe.kernel_functions (
    name_id bigint not null,
    name varchar not null,
    function varchar not null,
    class varchar not null,
    backend varchar,
    role varchar,
    reduction varchar,
    data_type varchar
);
