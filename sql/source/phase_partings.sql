-- Durations that part decode from prefill, of a trace in which nothing else does. Filled by
-- nsysmoe.analysis, since fitting two populations to durations takes a loop that SQL does not have.
-- No rows where ranges or grids tell phases, and where durations do not fall apart.
create table nsysmoe.phase_partings (
    gemm varchar,
    parting_ns bigint not null
);
