create view main.graph_launches as
select
    graph_launch_id,
    global_pid,
    process_id,
    device_id,
    stream_id,
    correlation_id,
    graph_id,
    graph_exec_id,
    start_ns,
    end_ns,
    dur_ns
from staging.stg_graph_launches;

comment on view main.graph_launches is
'CUDA graph launches recorded as a whole, in nsys''s graph mode: their kernels are not in kernels. Grain: one launch. Key: graph_launch_id.';
comment on column main.graph_launches.graph_launch_id is 'Row number in CUPTI_ACTIVITY_KIND_GRAPH_TRACE';
comment on column main.graph_launches.global_pid is 'Process as nsys serialises it (hardware, VM, pid)';
comment on column main.graph_launches.process_id is 'Process id on its host, or in its container';
comment on column main.graph_launches.device_id is 'CUDA ordinal of the GPU; NULL where the start was taken on the host';
comment on column main.graph_launches.stream_id is 'CUDA stream of the launch';
comment on column main.graph_launches.correlation_id is 'Joins the launch to its API call, within a process';
comment on column main.graph_launches.graph_id is 'CUDA graph';
comment on column main.graph_launches.graph_exec_id is 'Executable instance of the graph';
comment on column main.graph_launches.start_ns is 'Start, ns since the zero of the capture';
comment on column main.graph_launches.end_ns is 'End, ns since the zero of the capture';
comment on column main.graph_launches.dur_ns is 'Duration of the whole graph, ns';
