create view main.collectives as
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
    role as collective,
    coalesce(backend = 'nccl', false) as is_nccl,
    reduction,
    data_type
from main.kernels
where class = 'collective';

comment on view main.collectives is
'Communication between GPUs: every NCCL kernel, and reductions across GPUs by kernels of other names. Grain: one kernel execution on one GPU, so a collective over n ranks is n rows. Key: kernel_id. Invariant: the rows of kernels of class collective.';
comment on column main.collectives.kernel_id is 'Row number in CUPTI_ACTIVITY_KIND_KERNEL';
comment on column main.collectives.global_pid is 'Process as nsys serialises it (hardware, VM, pid); NULL where the export has none';
comment on column main.collectives.process_id is 'Process id on its host, or in its container';
comment on column main.collectives.device_id is 'CUDA ordinal of the GPU, as this process counts';
comment on column main.collectives.stream_id is 'CUDA stream, unique within a process and context';
comment on column main.collectives.correlation_id is 'Joins the kernel to the API call that launched it, within a process';
comment on column main.collectives.graph_node_id is 'Node of the CUDA graph that launched the kernel; NULL outside graphs';
comment on column main.collectives.start_ns is 'Start, ns since the zero of the capture: when this rank arrived';
comment on column main.collectives.end_ns is 'End, ns since the zero of the capture';
comment on column main.collectives.dur_ns is 'Duration, ns: waiting for other ranks included';
comment on column main.collectives.name_id is 'Number of the name: equal exactly where name is';
comment on column main.collectives.name is 'Demangled name';
comment on column main.collectives.function is 'Function component of the name';
comment on column main.collectives.backend is 'Whose kernel it is: nccl, vllm, flashinfer, torch_symmetric_memory, mscclpp';
comment on column main.collectives.collective is 'all_reduce, all_gather, reduce_scatter, broadcast, reduce, send_recv, all_to_all or other';
comment on column main.collectives.is_nccl is 'Whether it is NCCL''s: its function name starts with nccl';
comment on column main.collectives.reduction is 'Reduction by the name: sum, prod, min, max, minmax, avg, premulsum, sumpostdiv; NULL where the name has none';
comment on column main.collectives.data_type is 'Element type by the name: bf16, f16, f32, u32 (every 32-bit integer), u64, ...; NULL where the name has none';
