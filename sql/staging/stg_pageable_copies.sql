create view staging.stg_pageable_copies as
select
    globalPid as global_pid,
    correlationId as correlation_id,
    max("end") as end_ns
from nsys.CUPTI_ACTIVITY_KIND_MEMCPY
-- From the device (2) to pageable memory (0), by ENUM_CUDA_MEMCPY_OPER and ENUM_CUDA_MEM_KIND.
where copyKind = 2 and dstKind = 0 and correlationId is not null
group by globalPid, correlationId;

comment on view staging.stg_pageable_copies is
'Copies from a GPU to pageable host memory, which calls named Async wait for as well. Grain: one correlation id of one process. Key: (global_pid, correlation_id).';
