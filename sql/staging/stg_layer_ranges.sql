create view staging.stg_layer_ranges as
with labelled as (
    select
        events.globalTid as global_tid,
        events.start as start_ns,
        events."end" as end_ns,
        coalesce(events.text, strings.value) as label
    from nsys.NVTX_EVENTS as events
    left join nsys.StringIds as strings on events.textId = strings.id
),

numbered as (
    select
        global_tid,
        start_ns,
        end_ns,
        -- layer_3, model.layers.3.mlp: the outermost number where modules nest.
        try_cast(regexp_extract(label, '[Ll]ayers?[._](\d+)', 1) as bigint) as layer
    from labelled
    where regexp_matches(label, '[Ll]ayers?[._]\d+')
),

-- Modules inside a layer may count layers of their own (an MLP's): the outermost is the model's.
nested as (
    select
        *,
        max(end_ns) over (
            partition by global_tid
            order by start_ns asc, end_ns desc
            rows between unbounded preceding and 1 preceding
        ) as covered_ns
    from numbered
    where layer is not null
)

select
    global_tid,
    start_ns,
    end_ns,
    layer
from nested
where coalesce(covered_ns < end_ns, true);

comment on view staging.stg_layer_ranges is
'NVTX ranges that name a layer of the model. Grain: one outermost range. Key: (global_tid, start_ns).';
