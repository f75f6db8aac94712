-- Push/pop and start/end ranges whose text says which step of vLLM's engine runs; the loader
-- reads no others, since a trace may hold ten million.
create table nsys.NVTX_EVENTS (
    start bigint not null,
    "end" bigint not null,
    text varchar,
    textId bigint references nsys.StringIds (id),
    globalTid bigint
);
