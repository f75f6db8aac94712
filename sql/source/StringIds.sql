-- Strings by id. Only those that a loaded column refers to are read: since 2025.3 this table also
-- holds whole environment blocks.
create table nsys.StringIds (
    id bigint primary key,
    value varchar not null
);
