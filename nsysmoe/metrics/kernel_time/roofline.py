"""Which limit of the GPU bounds each MoE product, and how far it is from it.

The roofline of Williams, Waterman & Patterson (2009), with the traffic that nothing can avoid:
each active expert's matrix once. Activations are left out; they are below a percent of it in decode
and do not bound prefill.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def roofline(
    launches: pl.DataFrame,
    *,
    weights: Mapping[str, int],
    weight_bytes: float,
    bytes_per_s: float,
    flops_per_s: float,
) -> pl.DataFrame:
    """Add bytes, operations and the limit to each launch.

    Args:
        launches: What ``routing_cost.rank_work`` returned.
        weights: Weights of one expert's matrix, by product.
        weight_bytes: Bytes of one weight.
        bytes_per_s: Peak bandwidth of the GPU's memory.
        flops_per_s: Peak rate of dense matrix products in the type of the computation.

    Returns:
        The launches with ``read_bytes`` (active experts x bytes of a matrix), ``flops`` (2 x rows
        x weights of a matrix), ``memory_ns``, ``compute_ns`` (what each takes at peak),
        ``limit_ns`` (the longer), ``is_bandwidth_bound``.
    """
    size = pl.col("gemm").replace_strict(dict(weights), return_dtype=pl.Int64)
    read = pl.col("active") * size * weight_bytes
    flops = 2.0 * pl.col("rows") * size
    return launches.with_columns(
        read.alias("read_bytes"),
        flops.alias("flops"),
        (read / bytes_per_s * 1e9).alias("memory_ns"),
        (flops / flops_per_s * 1e9).alias("compute_ns"),
    ).with_columns(
        pl.max_horizontal("memory_ns", "compute_ns").alias("limit_ns"),
        (pl.col("memory_ns") >= pl.col("compute_ns")).alias("is_bandwidth_bound"),
    )


def by_limit(launches: pl.DataFrame, by: Sequence[str] = ("phase", "gemm")) -> pl.DataFrame:
    """Sum a roofline up.

    Args:
        launches: What ``roofline`` returned.
        by: What one row is.

    Returns:
        ``by``, ``launches``, ``total_ns``, ``bandwidth_bound_ratio`` (of the time),
        ``bytes_per_s``, ``flops_per_s`` (achieved), ``limit_ratio`` (limit / duration: 1 is at the
        roof), ``rows_per_expert`` (mean of active experts).
    """
    total = pl.col("dur_ns").sum()
    bound = pl.col("dur_ns").filter(pl.col("is_bandwidth_bound")).sum()
    return (
        launches.group_by(by, maintain_order=True)
        .agg(
            pl.len().cast(pl.Int64).alias("launches"),
            total.alias("total_ns"),
            (bound / total).alias("bandwidth_bound_ratio"),
            (pl.col("read_bytes").sum() / total * 1e9).alias("bytes_per_s"),
            (pl.col("flops").sum() / total * 1e9).alias("flops_per_s"),
            (pl.col("limit_ns").sum() / total).alias("limit_ratio"),
            (pl.col("rows").sum() / pl.col("active").sum()).alias("rows_per_expert"),
        )
        .sort(by)
    )


def ridge_rows(weight_bytes: float, bytes_per_s: float, flops_per_s: float) -> float:
    """Return the rows an expert at which reading its matrix takes as long as computing with it."""
    return weight_bytes * flops_per_s / (2 * bytes_per_s)
