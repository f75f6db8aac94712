"""What ran together: the MoE launches of a trace by batch, and the tokens of each batch.

A batch is a step of one engine, or with several (data parallel) a forward pass, in which all meet:
dispatch gathers the tokens of every engine, and each rank computes those of its own experts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from nsysmoe.errors import MissingDataError, RoutingError

if TYPE_CHECKING:
    import polars as pl

    from nsysmoe.routing import Meetings, RunRecord
    from nsysmoe.trace import Trace

LAUNCHED = (
    "kernel_id", "global_pid", "process_id", "rank", "ordinal", "step", "pass", "phase", "layer",
    "gemm", "blocks", "start_ns", "dur_ns",
)  # fmt: skip
_LABEL = (
    "step", "context_requests", "context_tokens", "generation_requests", "generation_tokens",
)  # fmt: skip


@dataclass(frozen=True)
class Batches:
    """Launches and tokens by batch.

    Attributes:
        launches: ``moe_launches`` with ``in_graph`` (a CUDA graph replayed it); ``step`` is the
            batch, ``phase`` decode or prefill (any prompt).
        slices: ``step`` (the batch), ``engine``, ``request``, ``first`` token, ``tokens``.
        left: Tokens of the run that come after the last batch.
        engines: Data-parallel ranks.
        told_by: How engines were told apart (``Meetings.by``); None with one.
        dummies: Launches of passes in which no engine had a request; empty with one engine.
        captured_to: The largest batch that CUDA graphs were captured for; 0 where none ran, or
            where it is not known.
        is_refuted: Whether the record's processes do not fit the trace's (``Meetings``).
    """

    launches: pl.DataFrame
    slices: pl.DataFrame
    left: int
    engines: int
    told_by: str | None
    dummies: pl.DataFrame
    captured_to: int = 0
    is_refuted: bool = False

    @property
    def ranks(self) -> int:
        """Ranks that share the experts."""
        return int(self.launches["rank"].n_unique())

    @property
    def tensor(self) -> int:
        """Tensor-parallel ranks of an engine."""
        return self.ranks // self.engines


def batches_of(trace: Trace, run: RunRecord) -> Batches:
    """Return the launches of a trace by batch, and which tokens ran in each.

    Raises:
        RoutingError: Trace and record are not of one run.
        MissingDataError: The trace does not tell steps, passes or layers.
    """
    launches = _launches(trace)
    if run.data_parallel == 1:
        slices, left = _of_one(trace, run)
        _check_known(launches, launches, trace)
        found = Batches(launches, slices, left, 1, None, launches.clear())
    else:
        found = _met(launches, _meetings(launches, trace, run), run, trace)
    return replace(found, launches=_by_expert_rank(found.launches, run))


def slices_of(trace: Trace, run: RunRecord) -> pl.DataFrame:
    """Return which tokens ran in which batch, as ``Batches.slices``.

    Raises:
        RoutingError: Trace and record are not of one run.
        MissingDataError: The trace does not tell steps or passes.
    """
    if run.data_parallel == 1:
        return _of_one(trace, run)[0]
    return _meetings(_launches(trace), trace, run).slices


def _launches(trace: Trace) -> pl.DataFrame:
    """Return launches, and whether a CUDA graph replayed each."""
    import polars as pl  # noqa: PLC0415

    # In one order, so that sums of floats have the same digits every time.
    launches = trace.frame("moe_launches", LAUNCHED).sort("rank", "ordinal")
    if launches.is_empty():
        raise MissingDataError(f"{trace.path} has no MoE kernel")
    graphs = trace.frame("moe_kernels", ("kernel_id", "graph_node_id"))
    return (
        launches.join(graphs, on="kernel_id", how="left", maintain_order="left")
        .with_columns(
            pl.col("graph_node_id").is_not_null().alias("in_graph"),
            # A step with prompts runs the kernels of prompts, whatever generates beside them.
            pl.col("phase").replace({"mixed": "prefill"}),
            pl.col("layer", "rank", "step", "pass").cast(pl.Int64),
        )
        .drop("graph_node_id")
    )


def _of_one(trace: Trace, run: RunRecord) -> tuple[pl.DataFrame, int]:
    """Replay the steps of the only engine."""
    import polars as pl  # noqa: PLC0415

    from nsysmoe.routing import replay  # noqa: PLC0415

    slices, left = replay(_steps(trace).iter_rows(named=True), run)
    return slices.with_columns(pl.lit(0, pl.Int64).alias("engine")), left


def _steps(trace: Trace) -> pl.DataFrame:
    """Return the steps of one process, after checking that all processes had the same."""
    steps = _all_steps(trace)
    first, *others = steps.select("global_pid", *_LABEL).partition_by(
        "global_pid", include_key=False, maintain_order=True
    )
    for other in others:
        if not first.equals(other):
            raise RoutingError(
                f"the processes of {trace.path} ran different steps: they are engines of their own "
                "(data parallel), and the record of the run tells of one (`args.dp`)"
            )
    return first


def _all_steps(trace: Trace) -> pl.DataFrame:
    steps = trace.frame("steps").sort("global_pid", "step")
    if steps.is_empty():
        raise MissingDataError(f"{trace.path} has none of vLLM's step ranges: nothing says which "
                               "tokens ran in which step")  # fmt: skip
    return steps


def _check_known(launches: pl.DataFrame, wanted: pl.DataFrame, trace: Trace) -> None:
    """Refuse launches of which it is not known where they belong."""
    import polars as pl  # noqa: PLC0415

    unknown = wanted.filter(pl.any_horizontal(pl.col("step", "phase", "layer").is_null()))
    if unknown.height:
        raise MissingDataError(
            f"{unknown.height:,} of {launches.height:,} MoE kernels of {trace.path} have no known "
            "step or layer: capture vLLM with its own NVTX ranges (--profiler-config.profiler cuda)"
        )


def _meetings(launches: pl.DataFrame, trace: Trace, run: RunRecord) -> Meetings:
    from nsysmoe.routing import replay_engines  # noqa: PLC0415

    steps = _all_steps(trace)
    if launches["pass"].null_count():
        raise MissingDataError(
            f"no kernel of {trace.path} runs once in each forward pass: which steps of its "
            f"{run.data_parallel} data-parallel engines met is not known"
        )
    return replay_engines(launches, steps, run)


def _met(launches: pl.DataFrame, meetings: Meetings, run: RunRecord, trace: Trace) -> Batches:
    """Return passes as batches; those without a request on any rank are set apart."""
    import polars as pl  # noqa: PLC0415

    _check_passes(launches, trace)
    # A whole pass without a label: its process had no request left, or ran it between two steps.
    is_dummy = pl.col("step").is_null() & (
        (pl.col("phase") == "dummy").fill_null(value=False)
        | pl.col("global_pid").is_in(list(meetings.done))
    )
    # Whoever had a request in a pass, all compute its tokens.
    is_served = launches.select(pl.col("step").is_not_null().any().over("pass"))["step"]
    _check_known(launches, launches.filter(~is_dummy), trace)
    passes = _as_passes(launches)
    _check_known(launches, passes.filter(is_served), trace)
    return Batches(
        launches=passes.filter(is_served),
        slices=meetings.slices,
        left=meetings.left,
        engines=run.data_parallel,
        told_by=meetings.by,
        dummies=passes.filter(~is_served),
        captured_to=_captured_to(launches, run),
        is_refuted=meetings.is_refuted,
    )


def _captured_to(launches: pl.DataFrame, run: RunRecord) -> int:
    from nsysmoe.metrics.kernel_time.tiles import largest_captured  # noqa: PLC0415

    if run.max_running is None or not launches["in_graph"].any():
        return 0
    return largest_captured(run.max_running, run.max_step_tokens)


def _as_passes(launches: pl.DataFrame) -> pl.DataFrame:
    """Return launches with their pass for a step; it is of prefill where any engine reads."""
    import polars as pl  # noqa: PLC0415

    reads = (pl.col("phase") == "prefill").fill_null(value=False).any().over("pass")
    return launches.with_columns(
        pl.col("pass").alias("step"),
        pl.when(reads).then(pl.lit("prefill")).otherwise(pl.lit("decode")).alias("phase"),
    )


def _check_passes(launches: pl.DataFrame, trace: Trace) -> None:
    """Refuse ranks whose passes of one number are not one pass.

    Each rank counts its own from the first that the trace holds. All compute a pass at the same
    time: between the collectives that gather its tokens and those that bring results back.
    """
    import polars as pl  # noqa: PLC0415

    spans = launches.group_by("pass", "rank").agg(
        pl.col("start_ns").min(), (pl.col("start_ns") + pl.col("dur_ns")).max().alias("end_ns")
    )
    met = spans.group_by("pass").agg(
        (pl.col("start_ns").max() > pl.col("end_ns").min()).alias("is_apart")
    )
    apart = int(met["is_apart"].sum())
    # Clocks of several hosts may be off by more than a short pass takes.
    if 2 * apart > met.height:
        raise RoutingError(
            f"ranks of {trace.path} ran {apart:,} of {met.height:,} forward passes at different "
            "times: the trace begins on them with different passes, and which met is not known"
        )


def _by_expert_rank(launches: pl.DataFrame, run: RunRecord) -> pl.DataFrame:
    """Number ranks by the experts that they hold, where the record tells; else by their GPUs."""
    import polars as pl  # noqa: PLC0415

    each = launches.select("rank", "process_id").unique().rows()
    workers = {rank: run.workers.get(process_id) for rank, process_id in each}
    parts = {rank: worker.expert_rank for rank, worker in workers.items() if worker is not None}
    if set(parts.values()) != {rank for rank, _ in each}:
        return launches
    return launches.with_columns(pl.col("rank").replace_strict(parts, return_dtype=pl.Int64)).sort(
        "rank", "ordinal"
    )
