create view main.moe_kernels as
select
    kernel_id,
    global_pid,
    process_id,
    device_id,
    stream_id,
    correlation_id,
    graph_node_id,
    start_ns,
    end_ns,
    dur_ns,
    name_id,
    name,
    function,
    backend,
    grid_x,
    grid_y,
    grid_z
from main.kernels
where class = 'moe_gemm';

comment on view main.moe_kernels is
'The experts'' matrix products (fused_moe_kernel and its peers in other backends): the MoE kernel of Table 1. Grain: one kernel execution on a GPU. Key: kernel_id. Invariant: the rows of kernels of class moe_gemm.';
comment on column main.moe_kernels.kernel_id is 'Row number in CUPTI_ACTIVITY_KIND_KERNEL';
comment on column main.moe_kernels.global_pid is 'Process as nsys serialises it (hardware, VM, pid); NULL where the export has none';
comment on column main.moe_kernels.process_id is 'Process id on its host, or in its container';
comment on column main.moe_kernels.device_id is 'CUDA ordinal of the GPU, as this process counts';
comment on column main.moe_kernels.stream_id is 'CUDA stream, unique within a process and context';
comment on column main.moe_kernels.correlation_id is 'Joins the kernel to the API call that launched it, within a process';
comment on column main.moe_kernels.graph_node_id is 'Node of the CUDA graph that launched the kernel; NULL outside graphs';
comment on column main.moe_kernels.start_ns is 'Start, ns since the zero of the capture';
comment on column main.moe_kernels.end_ns is 'End, ns since the zero of the capture';
comment on column main.moe_kernels.dur_ns is 'Duration, ns';
comment on column main.moe_kernels.name_id is 'Number of the name: equal exactly where name is';
comment on column main.moe_kernels.name is 'Demangled name';
comment on column main.moe_kernels.function is 'Function component of the name';
comment on column main.moe_kernels.backend is 'Whose kernel it is, by the class map';
comment on column main.moe_kernels.grid_x is 'Blocks in the grid, x: grows with the tokens of the launch';
comment on column main.moe_kernels.grid_y is 'Blocks in the grid, y';
comment on column main.moe_kernels.grid_z is 'Blocks in the grid, z';
