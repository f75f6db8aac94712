"""A trace with the routing of its run: every MoE launch with the work that it was given."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from nsysmoe.analysis.routing.batches import LAUNCHED, batches_of, slices_of
from nsysmoe.analysis.routing.routed_findings import Told
from nsysmoe.errors import MissingDataError, RoutingError
from nsysmoe.trace import open_trace

if TYPE_CHECKING:
    from pathlib import Path

    import polars as pl

    from nsysmoe.analysis.routing.batches import Batches
    from nsysmoe.classes import ClassMap
    from nsysmoe.findings import Finding
    from nsysmoe.metrics.kernel_time.tiles import Padding
    from nsysmoe.routing import Placement, PlacementHistory, RoutingLog, RunRecord
    from nsysmoe.trace import Trace


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
        launches: ``moe_launches`` of batches whose routing is known, with ``block_m``, what
            ``rank_work`` adds, and ``is_padded`` (the batch held rows beside the tokens, whose
            routes nobody wrote down). ``step`` is the batch: a step of the engine, with several
            engines a forward pass, in which all meet. ``phase`` is decode or prefill (any prompt).
        choices: ``step``, ``layer``, ``row`` (of its engine's batch), ``expert`` (logical): the
            log by batch.
        top_k: Experts that a token chooses in a layer.
        history: Where experts lived.
        ranks: Ranks that share the experts.
        gpu_names: Models of the GPUs.
        bandwidth: Lowest memory bandwidth of them by the trace, bytes/s; None where it tells none.
        findings: What to know about the inputs.
    """

    source: str
    launches: pl.DataFrame
    choices: pl.DataFrame
    top_k: int
    history: PlacementHistory
    ranks: int
    gpu_names: tuple[str, ...]
    bandwidth: int | None
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class _Sized:
    """Launches with the rows of their batch, and how engines' ranks share out theirs."""

    launches: pl.DataFrame
    shares: pl.DataFrame | None
    is_agreed: bool


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
    from nsysmoe.routing import read_run, read_vllm_log  # noqa: PLC0415

    log, run = read_vllm_log(inputs.routed), read_run(inputs.run)
    _check_lengths(log, run)
    with open_trace(inputs.trace, class_map=class_map, nsys=nsys) as trace:
        trace.read_ahead(
            ("moe_launches", LAUNCHED), ("steps", None), ("rearrangements", None),
            ("moe_kernels", ("kernel_id", "graph_node_id")),
        )  # fmt: skip
        batches = batches_of(trace, run)
        moved = trace.frame("rearrangements", ("start_ns", "end_ns"))
        gpu_names, bandwidth = _gpus(trace)
        odd = trace.findings()
    history = _history(log, run, batches.ranks, choices.experts)
    _check_layers(batches.launches, log, str(inputs.trace))
    placed, unplaced = _placed(batches.launches, moved, history)
    sized = _sized(placed, batches, log.top_k, history.before.physical, choices)
    by_step = _by_step(log, batches.slices, sized.shares)
    counts = count_rows(by_step, placed, history)
    work = rank_work(counts, sized.launches)
    told = Told(inputs.trace, inputs.run, log, run, batches, history)
    return RoutedArm(
        source=str(trace.path),
        launches=work,
        choices=by_step,
        top_k=log.top_k,
        history=history,
        ranks=batches.ranks,
        gpu_names=gpu_names,
        bandwidth=bandwidth,
        findings=(
            *told.of_batches(work, moved, unplaced=unplaced, is_told_by_grids=sized.is_agreed),
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
    from nsysmoe.routing import read_run  # noqa: PLC0415 - imports polars

    try:
        with open_trace(path) as trace:
            return slices_of(trace, read_run(record))
    except (MissingDataError, RoutingError):
        # Other traffic, or passes that nothing tells: the choices are worth keeping without steps.
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


def _by_step(log: RoutingLog, slices: pl.DataFrame, shares: pl.DataFrame | None) -> pl.DataFrame:
    """Return the log by batch, with each token's place in its engine's part of it.

    An engine holds requests in order of arrival, as its slots do until one is reused; each routes
    its own tokens, before engines exchange them.

    Args:
        log: The log.
        slices: Which tokens ran in which batch.
        shares: ``step``, ``engine``, ``share``: rows of each rank of an engine whose ranks share
            out its tokens, and route their share each; None where none do.
    """
    import numpy as np  # noqa: PLC0415
    import polars as pl  # noqa: PLC0415

    fed = (
        slices.select(
            "step",
            "engine",
            "request",
            pl.int_ranges("first", pl.col("first") + pl.col("tokens"), dtype=pl.UInt32).alias(
                "token"
            ),
        )
        .explode("token")
        .sort("step", "engine", "request", "token")
        .with_columns((pl.int_range(pl.len()).over("step", "engine")).alias("row"))
    )
    if shares is not None:
        fed = fed.join(
            shares, on=["step", "engine"], how="left", maintain_order="left"
        ).with_columns((pl.col("row") % pl.col("share")).alias("row"))
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
    launches: pl.DataFrame, batches: Batches, top_k: int, experts: int, choices: Choices
) -> _Sized:
    """Add ``step_tokens``, ``is_padded`` and ``block_m``; tell whether grids agree with the rows.

    Grids are sized by the rows of a batch alone, so that they tell whether rows were counted well.
    """
    import polars as pl  # noqa: PLC0415

    from nsysmoe.metrics.kernel_time.tiles import NO_PADDING, infer_rows  # noqa: PLC0415

    if choices.block_m is not None:
        given = pl.lit(choices.block_m, pl.Int64).alias("block_m")
        sized = _with_rows(launches, batches, NO_PADDING)
        return replace(sized, launches=sized.launches.with_columns(given))
    told: dict[str, Any] = {"top_k": top_k, "experts": experts, "widths": choices.widths}
    sized = _as_gathered(launches, batches, told)
    rows = infer_rows(_kinds(sized.launches), **told)
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
    with_blocks = sized.launches.join(
        known, on=["gemm", "batch_rows", "blocks"], how="left", maintain_order="left"
    )
    return replace(sized, launches=with_blocks)


def _as_gathered(launches: pl.DataFrame, batches: Batches, told: dict[str, Any]) -> _Sized:
    """Add the rows of each batch in the way that grids agree with, and whether there is one.

    What engines pad to where no graph runs the pass differs by version, the newest first.
    """
    from nsysmoe.metrics.kernel_time.tiles import (  # noqa: PLC0415
        NO_PADDING,
        Padding,
        grids_agree,
    )  # fmt: skip

    for padding in (Padding(captured_to=batches.captured_to), NO_PADDING, Padding(is_even=True)):
        sized = _with_rows(launches, batches, padding)
        if grids_agree(_kinds(sized.launches), **told):
            return sized
    return replace(_with_rows(launches, batches, NO_PADDING), is_agreed=False)


def _kinds(sized: pl.DataFrame) -> list[tuple[Any, ...]]:
    return sized.select("gemm", "batch_rows", "blocks").unique().rows()


def _with_rows(launches: pl.DataFrame, batches: Batches, padding: Padding) -> _Sized:
    """Add ``step_tokens``, ``batch_rows`` (with padding) and ``is_padded``."""
    import polars as pl  # noqa: PLC0415

    from nsysmoe.metrics.kernel_time.tiles import gathered_rows  # noqa: PLC0415

    tokens = (
        batches.slices.group_by("step", "engine")
        .agg(pl.col("tokens").sum().cast(pl.Int64))
        .sort("step", "engine")
        .group_by("step", maintain_order=True)
        .agg(
            pl.col("tokens").sum().alias("step_tokens"),
            pl.col("engine").alias("engines"),
            pl.col("tokens").alias("by_engine"),
        )
    )
    sized = launches.join(tokens, on="step", how="left", maintain_order="left")
    if sized["step_tokens"].null_count():
        raise RoutingError("MoE kernels ran in a step that its label calls idle")
    layout: dict[str, Any] = {
        "engines": batches.engines,
        "tensor": batches.tensor,
        "padding": padding,
    }
    kinds = sized.select("by_engine", "in_graph").unique()
    given = [gathered_rows(each, in_graph=in_graph, **layout) for each, in_graph in kinds.rows()]
    rows = kinds.with_columns(
        pl.Series("given", given, dtype=pl.List(pl.Int64)),
        pl.Series("batch_rows", [sum(each) for each in given], dtype=pl.Int64),
    )
    counted = sized.join(rows, on=["by_engine", "in_graph"], how="left", maintain_order="left")
    shares = None
    if batches.engines > 1 and batches.tensor > 1:
        # vLLM's `sequence_parallel_chunk`; engines without a request have no token to route.
        shares = (
            counted.unique("step", keep="first", maintain_order=True)
            .select("step", "engines", pl.col("given").list.head(pl.col("engines").list.len()))
            .explode("engines", "given")
            .select("step", engine="engines", share=pl.col("given") // batches.tensor)
        )
    launches = counted.drop("engines", "by_engine", "given").with_columns(
        (pl.col("batch_rows") > pl.col("step_tokens")).alias("is_padded"),
        pl.col("blocks").cast(pl.Int64),
    )
    return _Sized(launches, shares, is_agreed=True)
