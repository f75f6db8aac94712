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
