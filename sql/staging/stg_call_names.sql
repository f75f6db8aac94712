create view staging.stg_call_names as
select
    id as name_id,
    value as name,
    -- Without the version of the interface: cudaLaunchKernel_v7000.
    regexp_replace(value, '_v[0-9]+(_pt[sd][sz])?$', '') as call,
    case
        when regexp_matches(value, '^cu(da)?GraphLaunch') then 'graph_launch'
        when regexp_matches(value, '^cu(da)?Launch(Cooperative)?(Kernel|Grid|_|$)') then 'launch'
        -- Copies of the driver and of the runtime that are not Async wait for the GPU as well.
        when
            regexp_matches(
                value,
                '^cu(da)?(Stream|Device|Event|Ctx|Thread)Synchronize'
                || '|^cudaMemcpy(2D|3D)?(To|From)?(Symbol|Array)*(_v|_ptds|$)'
                || '|^cuMemcpy(2D|3D)?([DHA]to[DHA])?(_v|_ptds|$)'
            )
            then 'blocking'
        when regexp_matches(value, '^cu(ModuleLoad|LibraryLoad|LinkComplete|daLibraryLoad)')
            then 'load'
        -- With lazy loading these bring a function to the GPU when they are first asked.
        when
            regexp_matches(
                value,
                '^cu(da)?(Kernel|Func)(Set|Get)(Attribute|CacheConfig|SharedMemConfig)'
                || '|^cuKernelGetFunction|^cuFuncLoad'
                || '|^cu(da)?(Library|Module)Get(Kernel|Function|Global|Managed|Module)'
            )
            then 'first_use'
        else 'other'
    end as kind
from nsys.StringIds
where starts_with(value, 'cu');

comment on view staging.stg_call_names is
'Names of CUDA API calls and what they do: launch, graph_launch, blocking (wait for the GPU), load (compiled code), first_use (of a function) or other. Grain: one name. Key: name_id.';
