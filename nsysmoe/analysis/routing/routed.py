"""A trace with the routing of its run: every MoE launch with the work that it was given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nsysmoe.errors import MissingDataError, RoutingError
from nsysmoe.findings import Finding
from nsysmoe.trace import open_trace

if TYPE_CHECKING:
    from pathlib import Path

    import polars as pl

    from nsysmoe.classes import ClassMap
    from nsysmoe.routing import Placement, PlacementHistory, RoutingLog, RunRecord
    from nsysmoe.trace import Trace

_LAUNCHED = (
    "kernel_id", "rank", "ordinal", "step", "phase", "layer", "gemm", "blocks", "start_ns",
    "dur_ns",
)  # fmt: skip


@dataclass(frozen=True)
class Inputs:
    """One arm: the trace, its routing log, and the record of the run."""

    trace: Path
    routed: Path
    run: Path

    def paths(self) -> tuple[Path, ...]:
        """Return the files, none of which may be written."""
        return self.trace, self.routed, self.run


@dataclass(frozen=True)
class Choices:
    """How launches are read where the trace does not tell.

    Attributes:
        widths: Columns of each product's result; None where the model's sizes are not known.
        block_m: Rows of a block in every launch; None to read it off the grids.
        experts: Logical experts of a layer; None for the highest of the log plus one.
    """

    widths: dict[str, int] | None = None
    block_m: int | None = None
    experts: int | None = None


@dataclass(frozen=True)
class RoutedArm:
    """Launches of a trace with their work.

    Attributes:
        source: The trace.
        launches: ``moe_launches`` of steps whose routing is known, with ``block_m``, what
            ``rank_work`` adds, and ``is_padded`` (a CUDA graph's batch held rows beside the tokens,
            whose routes nobody wrote down). ``phase`` is decode or prefill (any prompt).
        choices: ``step``, ``layer``, ``row`` (of the batch), ``expert`` (logical): the log by step.
        history: Where experts lived.
        ranks: Ranks that share the experts.
        gpu_names: Models of the GPUs.
        bandwidth: Lowest memory bandwidth of them by the trace, bytes/s; None where it tells none.
        findings: What to know about the inputs.
    """

    source: str
    launches: pl.DataFrame
    choices: pl.DataFrame
    history: PlacementHistory
    ranks: int
    gpu_names: tuple[str, ...]
    bandwidth: int | None
    findings: tuple[Finding, ...]


def read_arm(
    inputs: Inputs,
    choices: Choices,
    *,
    class_map: ClassMap | None = None,
    nsys: str | None = None,
) -> RoutedArm:
    """Read a trace and its routing, replay which tokens ran in which step, and count their work.

    Raises:
        RoutingError: Trace, log and record are not of one run.
        MissingDataError: The trace does not tell steps, layers or block sizes.
        NsysmoeError: An input cannot be used.
    """
    from nsysmoe.metrics.routed_load.routing_cost import rank_work  # noqa: PLC0415 - imports polars
    from nsysmoe.routing import read_run, read_vllm_log, replay  # noqa: PLC0415

    log, run = read_vllm_log(inputs.routed), read_run(inputs.run)
    _check_lengths(log, run)
    with open_trace(inputs.trace, class_map=class_map, nsys=nsys) as trace:
        trace.read_ahead(
            ("moe_launches", _LAUNCHED), ("steps", None), ("rearrangements", None),
            ("moe_kernels", ("kernel_id", "graph_node_id")),
        )  # fmt: skip
        launches, steps = _launches(trace), _steps(trace)
        moved = trace.frame("rearrangements", ("start_ns", "end_ns"))
        gpu_names, bandwidth = _gpus(trace)
        odd = trace.findings()
    slices, left = replay(steps.iter_rows(named=True), run)
    ranks = int(launches["rank"].n_unique())
    history = _history(log, run, ranks, choices.experts)
    _check_layers(launches, log, str(inputs.trace))
    placed, unplaced = _placed(launches, moved, history)
    by_step = _by_step(log, slices)
    sized = _sized(placed, slices, log.top_k, history.before.physical, choices)
    counts = count_rows(by_step, placed, history)
    work = rank_work(counts, sized)
    return RoutedArm(
        source=str(trace.path),
        launches=work,
        choices=by_step,
        history=history,
        ranks=ranks,
        gpu_names=gpu_names,
        bandwidth=bandwidth,
        findings=(
            *_partial(inputs, left, log),
            *_padding(inputs, work),
            *_unplaced(inputs, unplaced),
            *_unseen(inputs, history, moved),
            *_replicas(inputs, history, run),
            *odd,
        ),
    )


def write_captured(folder: Path, run: str) -> Path | None:
    """Write ``routing.parquet`` of a captured run, with steps where the trace tells them.

    Args:
        folder: Of the run: ``trace.sqlite``, ``run.json``, ``routing.npz``.
        run: What to call the run in it.

    Returns:
        The file; None where vLLM returned no experts.

    Raises:
        NsysmoeError: The routing cannot be read or written.
    """
    from nsysmoe.routing.captured import RECORD, write_routing  # noqa: PLC0415 - imports polars
    from nsysmoe.routing.convert import ARRAYS  # noqa: PLC0415

    if not (folder / ARRAYS).is_file():
        return None
    trace = folder / "trace.sqlite"
    return write_routing(folder, run, _replayed(trace, folder / RECORD) if trace.exists() else None)


def _replayed(path: Path, record: Path) -> pl.DataFrame | None:
    """Return which tokens ran in which step; None where the trace does not tell."""
    from nsysmoe.routing import read_run, replay  # noqa: PLC0415 - imports polars

    try:
        with open_trace(path) as trace:
            steps = _steps(trace)
        return replay(steps.iter_rows(named=True), read_run(record))[0]
    except (MissingDataError, RoutingError):
        # Several engines, or other traffic: the choices are worth keeping without steps.
        return None


def count_rows(
    choices: pl.DataFrame, launches: pl.DataFrame, history: PlacementHistory
) -> pl.DataFrame:
    """Count the rows of every physical expert.

    Args:
        choices: Attribute ``choices`` of an arm.
        launches: ``step`` and ``is_after`` (whether the second placement holds).
        history: The placements.

    Returns:
        ``step``, ``layer``, ``rank``, ``expert`` (physical), ``rows``.
    """
    import polars as pl  # noqa: PLC0415 - slow to import

    parts = []
    for is_after, placement in ((False, history.before), (True, history.after)):
        steps = launches.filter(pl.col("is_after") == is_after)["step"].unique()
        part = choices.filter(pl.col("step").is_in(steps.implode()))
        parts.append(_counted(part, placement))
    return pl.concat(parts)


def _counted(choices: pl.DataFrame, placement: Placement) -> pl.DataFrame:
    """Count rows by step, layer and physical expert: one number for all three."""
    import numpy as np  # noqa: PLC0415
    import polars as pl  # noqa: PLC0415

    layer = choices["layer"].to_numpy().astype(np.int64)
    physical = placement.physical_of(layer, choices["expert"].to_numpy(), choices["row"].to_numpy())
    key = choices["step"].to_numpy() * placement.layers + layer
    key = key * placement.physical + physical
    if key.size and key.max() > 4 * key.size:
        # Too sparse for a table of every expert in every step.
        found, rows = np.unique(key, return_counts=True)
    else:
        table = np.bincount(key)
        found = np.flatnonzero(table)
        rows = table[found]
    step, expert = np.divmod(found, placement.layers * placement.physical)
    layer, expert = np.divmod(expert, placement.physical)
    return pl.DataFrame(
        {
            "step": step,
            "layer": layer,
            "rank": placement.rank_of(expert),
            "expert": expert,
            "rows": rows.astype(np.int64),
        }
    )


def _check_lengths(log: RoutingLog, run: RunRecord) -> None:
    if len(log.tokens) != len(run.prompt_tokens):
        raise RoutingError(
            f"{log.source} holds {len(log.tokens):,} requests, {run.source} "
            f"{len(run.prompt_tokens):,}"
        )
    lengths = zip(run.prompt_tokens, run.output_tokens, strict=True)
    for number, (tokens, (prompt, output)) in enumerate(zip(log.tokens, lengths, strict=True)):
        if tokens != prompt + output - 1:
            raise RoutingError(
                f"request {number} of {log.source} has {tokens:,} tokens; a prompt of {prompt:,} "
                f"and {output:,} outputs, of which the last is never fed, make "
                f"{prompt + output - 1:,} ({run.source})"
            )


def _launches(trace: Trace) -> pl.DataFrame:
    """Return launches of steps with a known layer, and whether a CUDA graph replayed each."""
    import polars as pl  # noqa: PLC0415

    # In one order, so that sums of floats have the same digits every time.
    launches = trace.frame("moe_launches", _LAUNCHED).sort("rank", "ordinal")
    if launches.is_empty():
        raise MissingDataError(f"{trace.path} has no MoE kernel")
    graphs = trace.frame("moe_kernels", ("kernel_id", "graph_node_id"))
    known = launches.join(graphs, on="kernel_id", how="left", maintain_order="left").with_columns(
        pl.col("graph_node_id").is_not_null().alias("in_graph"),
        # A step with prompts runs the kernels of prompts, whatever generates beside them.
        pl.col("phase").replace({"mixed": "prefill"}),
        pl.col("layer").cast(pl.Int64),
        pl.col("rank").cast(pl.Int64),
    )
    unknown = known.filter(pl.any_horizontal(pl.col("step", "phase", "layer").is_null()))
    if unknown.height:
        raise MissingDataError(
            f"{unknown.height:,} of {known.height:,} MoE kernels of {trace.path} have no known "
            "step or layer: capture vLLM with its own NVTX ranges (--profiler-config.profiler cuda)"
        )
    return known.drop("graph_node_id")


def _steps(trace: Trace) -> pl.DataFrame:
    """Return the steps of one process, after checking that all processes had the same."""
    steps = trace.frame("steps").sort("global_pid", "step")
    if steps.is_empty():
        raise MissingDataError(f"{trace.path} has none of vLLM's step ranges: nothing says which "
                               "tokens ran in which step")  # fmt: skip
    labels = [
        "step", "context_requests", "context_tokens", "generation_requests", "generation_tokens",
    ]  # fmt: skip
    first, *others = steps.select("global_pid", *labels).partition_by(
        "global_pid", include_key=False, maintain_order=True
    )
    for other in others:
        if not first.equals(other):
            raise RoutingError(
                f"the processes of {trace.path} ran different steps: they are engines of their own "
                "(data parallel), and the log of one engine does not tell the tokens of another"
            )
    return first


def _gpus(trace: Trace) -> tuple[tuple[str, ...], int | None]:
    used = {row["gpu_name"] for row in trace.rows("devices")} - {None}
    bandwidths = [
        row["memory_bandwidth_bytes"] for row in trace.rows("gpus") if row["name"] in used
    ]
    known = [value for value in bandwidths if value]
    return tuple(sorted(used)), min(known) if known and len(known) == len(bandwidths) else None


def _history(log: RoutingLog, run: RunRecord, ranks: int, experts: int | None) -> PlacementHistory:
    from nsysmoe.routing.experts import PlacementHistory, contiguous, placed  # noqa: PLC0415

    if not run.expert_parallel:
        raise MissingDataError(
            f"{run.source}: without expert parallelism every rank holds a slice of every expert"
        )
    if run.data_parallel > 1:
        raise MissingDataError(f"{run.source}: {run.data_parallel} data-parallel engines have a "
                               "log each; only one engine can be replayed")  # fmt: skip
    highest = int(log.choices["expert"].max()) + 1  # type: ignore[arg-type]
    first, last = run.map_before or run.map_after, run.map_after or run.map_before
    if first is None or last is None:
        if experts is None and highest % ranks:
            raise MissingDataError(
                f"{highest} experts do not divide among {ranks} ranks: give --config"
            )
        same = contiguous(log.layers, max(experts or highest, highest), ranks)
        return PlacementHistory(same, same)
    history = PlacementHistory(placed(first, ranks), placed(last, ranks))
    for placement in (history.before, history.after):
        if placement.layers != log.layers or placement.experts < highest:
            raise RoutingError(
                f"{run.source} maps {placement.layers} layers and {placement.experts} experts, "
                f"{log.source} has {log.layers} and {highest}"
            )
    return history


def _check_layers(launches: pl.DataFrame, log: RoutingLog, source: str) -> None:
    layers = int(launches["layer"].n_unique())
    if layers != log.layers:
        raise RoutingError(f"{source} has {layers} MoE layers, {log.source} {log.layers}")


def _placed(
    launches: pl.DataFrame, moved: pl.DataFrame, history: PlacementHistory
) -> tuple[pl.DataFrame, int]:
    """Say which placement holds at each launch, and drop those at which it is not known.

    The record's first map holds until the first rearrangement of the capture, the second from the
    last one on. vLLM rearranges after the forward pass of a step.
    """
    import polars as pl  # noqa: PLC0415

    if moved.is_empty() or not history.changes:
        return launches.with_columns(pl.lit(True).alias("is_after")), 0
    first, last = moved["start_ns"].min(), moved["end_ns"].max()
    spans = launches.group_by("step").agg(
        (pl.col("start_ns").max() < first).alias("is_before"),
        (pl.col("start_ns").min() >= last).alias("is_after"),
    )
    known = launches.join(spans.filter(pl.col("is_before") | pl.col("is_after")), on="step")
    return known.drop("is_before").sort("rank", "ordinal"), launches.height - known.height


def _by_step(log: RoutingLog, slices: pl.DataFrame) -> pl.DataFrame:
    """Return the log by step, with each token's place in its batch.

    A batch holds requests in order of arrival, as the engine's slots do until one is reused.
    """
    import numpy as np  # noqa: PLC0415
    import polars as pl  # noqa: PLC0415

    fed = (
        slices.select(
            "step",
            "request",
            pl.int_ranges("first", pl.col("first") + pl.col("tokens"), dtype=pl.UInt32).alias(
                "token"
            ),
        )
        .explode("token")
        .sort("step", "request", "token")
        .with_columns((pl.int_range(pl.len()).over("step")).alias("row"))
    )
    # A place for every token of the log; a join of tens of millions of choices takes ten times
    # as long.
    starts = np.cumsum([0, *log.tokens])
    places = {name: np.full(int(starts[-1]), -1, np.int64) for name in ("step", "row")}
    ran = starts[fed["request"].to_numpy()] + fed["token"].to_numpy()
    for name, place in places.items():
        place[ran] = fed[name].to_numpy()
    chosen = starts[log.choices["request"].to_numpy()] + log.choices["token"].to_numpy()
    return (
        log.choices.select("layer", "expert")
        .with_columns(pl.Series(name, place[chosen]) for name, place in places.items())
        .filter(pl.col("step") >= 0)
    )


def _sized(
    launches: pl.DataFrame, slices: pl.DataFrame, top_k: int, experts: int, choices: Choices
) -> pl.DataFrame:
    """Add ``step_tokens``, ``is_padded`` and ``block_m``."""
    import polars as pl  # noqa: PLC0415

    from nsysmoe.metrics.kernel_time.tiles import captured_rows, infer_rows  # noqa: PLC0415

    tokens = slices.group_by("step").agg(pl.col("tokens").sum().cast(pl.Int64).alias("step_tokens"))
    captured = {n: captured_rows(n) for n in tokens["step_tokens"].unique().to_list()}
    held = pl.col("step_tokens").replace_strict(captured, return_dtype=pl.Int64)
    sized = launches.join(tokens, on="step", how="left", maintain_order="left").with_columns(
        pl.when("in_graph").then(held).otherwise("step_tokens").alias("batch_rows")
    )
    if sized["step_tokens"].null_count():
        raise RoutingError("MoE kernels ran in a step that its label calls idle")
    sized = sized.with_columns((pl.col("batch_rows") > pl.col("step_tokens")).alias("is_padded"))
    if choices.block_m is not None:
        return sized.with_columns(pl.lit(choices.block_m, pl.Int64).alias("block_m"))
    kinds = sized.select("gemm", "batch_rows", "blocks").unique().rows()
    rows = infer_rows(kinds, top_k=top_k, experts=experts, widths=choices.widths)
    if lost := [kind for kind, block_m in rows.items() if block_m is None]:
        gemm, tokens_, blocks = min(lost)
        raise MissingDataError(
            f"no block size gives {blocks:,} blocks for {tokens_:,} tokens ({gemm}): another "
            "kernel than vLLM's fused_moe, or another capture size; give --block-m"
        )
    known = pl.DataFrame(
        [(*kind, block_m) for kind, block_m in rows.items()],
        schema={
            "gemm": pl.String, "batch_rows": pl.Int64, "blocks": pl.Int64, "block_m": pl.Int64,
        },
        orient="row",
    )  # fmt: skip
    return sized.with_columns(pl.col("blocks").cast(pl.Int64)).join(
        known, on=["gemm", "batch_rows", "blocks"], how="left", maintain_order="left"
    )


def _partial(inputs: Inputs, left: int, log: RoutingLog) -> list[Finding]:
    if not left:
        return []
    total = sum(log.tokens)
    return [
        Finding(
            "partial_run",
            "info",
            f"{inputs.trace} ends before the run does: {total - left:,} of {total:,} tokens ran "
            "in it",
            {"source": str(inputs.trace), "tokens": total, "left": left},
        )
    ]


def _padding(inputs: Inputs, launches: pl.DataFrame) -> list[Finding]:
    padded = launches.filter(launches["is_padded"])
    if padded.is_empty():
        return []
    ratio = int(padded["dur_ns"].sum()) / int(launches["dur_ns"].sum())
    return [
        Finding(
            "padded_batches",
            "info",
            f"{padded['step'].n_unique():,} steps of {inputs.trace} ({ratio:.1%} of MoE time) were "
            "padded to a CUDA graph's size: padding chooses experts too and nobody wrote down "
            "which, so these steps are not fitted",
            _evidence(inputs, padded, ratio),
        )
    ]


def _evidence(inputs: Inputs, padded: pl.DataFrame, ratio: float) -> dict[str, Any]:
    return {
        "source": str(inputs.trace),
        "steps": padded["step"].n_unique(),
        "launches": padded.height,
        "time_ratio": ratio,
    }


def _unplaced(inputs: Inputs, launches: int) -> list[Finding]:
    if not launches:
        return []
    return [
        Finding(
            "unknown_placement",
            "warning",
            f"{launches:,} MoE kernels of {inputs.trace} ran between two rearrangements: the "
            "record of the run has the maps before and after all of them only, so they are left "
            "out",
            {"source": str(inputs.trace), "launches": launches},
        )
    ]


def _unseen(inputs: Inputs, history: PlacementHistory, moved: pl.DataFrame) -> list[Finding]:
    if moved.height or not history.changes:
        return []
    return [
        Finding(
            "unseen_rearrangement",
            "warning",
            f"the maps of {inputs.run} differ and {inputs.trace} shows no rearrangement: it came "
            "before the capture, or moved weights by copies; the last map is taken for all steps",
            {"source": str(inputs.trace)},
        )
    ]


def _replicas(inputs: Inputs, history: PlacementHistory, run: RunRecord) -> list[Finding]:
    if not (history.before.has_replicas or history.after.has_replicas):
        return []
    return [
        Finding(
            "replica_choice",
            "info",
            f"{inputs.trace} has replicas: which of them a token was given follows vLLM's hash of "
            "its row in the batch (0.20.2 on), with rows in order of arrival; where the engine "
            "reused a slot, single tokens may have gone to the other replica",
            {
                "source": str(inputs.trace),
                "engine": run.engine,
                "physical": history.after.physical,
                "logical": history.after.experts,
            },
        )
    ]
