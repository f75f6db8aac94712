create view main.kernels as
select
    events.kernel_id,
    events.global_pid,
    events.process_id,
    events.device_id,
    events.context_id,
    events.stream_id,
    events.correlation_id,
    events.graph_node_id,
    events.start_ns,
    events.end_ns,
    events.dur_ns,
    functions.name_id,
    functions.name,
    functions.function,
    functions.class,
    functions.backend,
    functions.role,
    functions.reduction,
    functions.data_type,
    events.grid_x,
    events.grid_y,
    events.grid_z,
    events.block_x,
    events.block_y,
    events.block_z,
    events.registers_per_thread,
    events.static_shared_bytes,
    events.dynamic_shared_bytes
from staging.stg_kernels as events
inner join staging.stg_kernel_names as names on events.string_id = names.string_id
inner join nsysmoe.kernel_functions as functions on names.name = functions.name;

comment on view main.kernels is
'Every kernel execution with its class. Grain: one kernel execution on a GPU. Key: kernel_id. Invariant: as many rows as CUPTI_ACTIVITY_KIND_KERNEL.';
comment on column main.kernels.kernel_id is 'Row number in CUPTI_ACTIVITY_KIND_KERNEL';
comment on column main.kernels.global_pid is 'Process as nsys serialises it (hardware, VM, pid); NULL where the export has none';
comment on column main.kernels.process_id is 'Process id on its host, or in its container';
comment on column main.kernels.device_id is 'CUDA ordinal of the GPU, as this process counts';
comment on column main.kernels.context_id is 'CUDA context, unique within a process';
comment on column main.kernels.stream_id is 'CUDA stream, unique within (global_pid, context_id)';
comment on column main.kernels.correlation_id is 'Joins the kernel to the API call that launched it, within a process; all kernels of one graph launch share it';
comment on column main.kernels.graph_node_id is 'Node of the CUDA graph that launched the kernel; NULL outside graphs';
comment on column main.kernels.start_ns is 'Start, ns since the zero of the capture';
comment on column main.kernels.end_ns is 'End, ns since the zero of the capture';
comment on column main.kernels.dur_ns is 'Duration, ns';
comment on column main.kernels.name_id is 'Number of the name: equal exactly where name is';
comment on column main.kernels.name is 'Demangled name; ? where the export lost it';
comment on column main.kernels.function is 'Function component of the name, without namespaces, templates and parameters';
comment on column main.kernels.class is 'What the kernel is for, by the class map; unclassified where no rule matches';
comment on column main.kernels.backend is 'Whose kernel it is, by the class map';
comment on column main.kernels.role is 'What it does within its class, by the class map';
comment on column main.kernels.reduction is 'Reduction of a collective, by its name: sum, prod, min, max, minmax, avg, premulsum, sumpostdiv; NULL elsewhere';
comment on column main.kernels.data_type is 'Element type of a reducing collective, by its name: bf16, f16, f32, u32 (every 32-bit integer), u64, ...; NULL elsewhere';
comment on column main.kernels.grid_x is 'Blocks in the grid, x';
comment on column main.kernels.grid_y is 'Blocks in the grid, y';
comment on column main.kernels.grid_z is 'Blocks in the grid, z';
comment on column main.kernels.block_x is 'Threads in a block, x';
comment on column main.kernels.block_y is 'Threads in a block, y';
comment on column main.kernels.block_z is 'Threads in a block, z';
comment on column main.kernels.registers_per_thread is 'Registers per thread';
comment on column main.kernels.static_shared_bytes is 'Static shared memory per block, bytes';
comment on column main.kernels.dynamic_shared_bytes is 'Dynamic shared memory per block, bytes';
