"""How long communication kernels ran (Table 1, second group), waiting included."""

from __future__ import annotations

import polars as pl

from nsysmoe.classes import COLLECTIVE


def communication_totals(kernels: pl.DataFrame) -> pl.DataFrame:
    """Sum the time of collectives in the paper's two senses, and what they leave out.

    Args:
        kernels: One row a kernel name (or finer); ``class``, ``backend``, ``role``,
            ``data_type``, ``total_ns`` (Int64, ns).

    Returns:
        One row, ns: ``nccl_total_ns`` every NCCL kernel; ``allreduce_total_ns`` NCCL AllReduce;
        ``other_allreduce_total_ns`` all-reduces by kernels that are not NCCL's;
        ``bookkeeping_allreduce_ns`` the part of NCCL AllReduce on 32-bit integers, which carries
        token and load counts and no model data.
    """
    collectives = kernels.filter(pl.col("class") == COLLECTIVE)
    is_nccl = pl.col("backend").eq_missing("nccl")
    is_allreduce = pl.col("role").eq_missing("all_reduce")
    is_u32 = pl.col("data_type").eq_missing("u32")
    total = pl.col("total_ns")
    return collectives.select(
        total.filter(is_nccl).sum().alias("nccl_total_ns"),
        total.filter(is_nccl & is_allreduce).sum().alias("allreduce_total_ns"),
        total.filter(~is_nccl & is_allreduce).sum().alias("other_allreduce_total_ns"),
        total.filter(is_nccl & is_allreduce & is_u32).sum().alias("bookkeeping_allreduce_ns"),
    )


def nccl_mix(kernels: pl.DataFrame) -> pl.DataFrame:
    """Return which collectives NCCL's time is made of, the largest first.

    Args:
        kernels: One row a kernel name; ``class``, ``backend``, ``role``, ``launches``,
            ``total_ns``.

    Returns:
        ``collective``, ``launches``, ``total_ns`` (ns), ``time_ratio`` (0 to 1).
    """
    nccl = kernels.filter((pl.col("class") == COLLECTIVE) & (pl.col("backend") == "nccl"))
    return (
        nccl.group_by(pl.col("role").alias("collective"))
        .agg(pl.col("launches", "total_ns").sum())
        .with_columns((pl.col("total_ns") / pl.col("total_ns").sum()).alias("time_ratio"))
        .sort("total_ns", "collective", descending=[True, False])
    )


def class_shares(kernels: pl.DataFrame) -> pl.DataFrame:
    """Return launches, total time and share of GPU time by class, the largest first.

    Args:
        kernels: One row a kernel name; ``class``, ``launches``, ``total_ns``.

    Returns:
        ``class``, ``kernels`` (names), ``launches``, ``total_ns``, ``time_ratio`` (0 to 1).
    """
    return (
        kernels.group_by("class")
        .agg(
            pl.len().cast(pl.Int64).alias("kernels"),
            pl.col("launches").sum(),
            pl.col("total_ns").sum(),
        )
        .with_columns(
            pl.when(pl.col("total_ns").sum() > 0)
            .then(pl.col("total_ns") / pl.col("total_ns").sum())
            .alias("time_ratio")
        )
        .sort("total_ns", "class", descending=[True, False])
    )


# Counts and flags, not activations: NCCL prints every 32-bit integer as u32.
INTEGERS = ("u8", "i8", "u32", "i32", "u64", "i64")


def purposes(kernels: pl.DataFrame) -> pl.DataFrame:
    """Return what communication was for, by backend, the largest first.

    Read off names and what else ran, since a trace holds no communicators: integers are
    ``bookkeeping`` (token counts, expert loads); SendRecv beside EPLB's kernels moves expert
    ``weights``; a reduce-scatter with an all-gather, or a reduce with a broadcast, as often as
    there are MoE layers, are ``combine`` and ``dispatch`` of data-parallel ranks (vLLM's
    allgather_reducescatter and naive backends); dedicated all-to-all kernels say it themselves;
    the rest is the ``model``'s: tensor-parallel sums, logits.

    Args:
        kernels: One row a kernel name; ``class``, ``backend``, ``role``, ``data_type``,
            ``launches``, ``total_ns``.

    Returns:
        ``purpose``, ``backend``, ``launches``, ``total_ns`` (ns), ``time_ratio`` (0 to 1).
    """
    found = kernels.filter(pl.col("class").is_in([COLLECTIVE, "moe_all2all"]))
    # Two products a layer.
    layers = int(kernels.filter(pl.col("class") == "moe_gemm")["launches"].sum()) // 2
    launched = dict(found.group_by("role").agg(pl.col("launches").sum()).iter_rows())
    has_eplb = not kernels.filter(pl.col("class") == "eplb").is_empty()

    def pair(carries: str, gathers: str) -> bool:
        # Some steps of vLLM's go through the other pair: together they are every layer.
        both = launched.get("reduce_scatter", 0) + launched.get("reduce", 0)
        return bool(launched.get(carries) and launched.get(gathers) and both >= layers > 0)

    role, is_model = pl.col("role"), pl.lit("model")
    scattered = pair("reduce_scatter", "all_gather")
    reduced = pair("reduce", "broadcast")
    purpose = (
        pl.when(pl.col("class") == "moe_all2all")
        .then(role)
        .when(pl.col("data_type").is_in(INTEGERS))
        .then(pl.lit("bookkeeping"))
        .when((role == "send_recv") & has_eplb)
        .then(pl.lit("weights"))
        .when(((role == "reduce_scatter") & scattered) | ((role == "reduce") & reduced))
        .then(pl.lit("combine"))
        .when(((role == "all_gather") & scattered) | ((role == "broadcast") & reduced))
        .then(pl.lit("dispatch"))
        .otherwise(is_model)
    )
    return (
        found.group_by(purpose.alias("purpose"), "backend")
        .agg(pl.col("launches", "total_ns").sum())
        .with_columns((pl.col("total_ns") / pl.col("total_ns").sum()).alias("time_ratio"))
        .sort("total_ns", "purpose", descending=[True, False])
    )
