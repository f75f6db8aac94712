"""Communication totals and shares, on rows that can be checked by eye."""

from __future__ import annotations

import polars as pl

from nsysmoe.metrics.kernel_time.communication import class_shares, communication_totals

KERNELS = pl.DataFrame(
    [
        ("collective", "nccl", "all_reduce", "u32", 2, 1),
        ("collective", "nccl", "all_reduce", "bf16", 2, 20),
        ("collective", "nccl", "all_gather", None, 2, 300),
        ("collective", "vllm", "all_reduce", None, 2, 4000),
        ("collective", None, None, None, 2, 50000),
        ("moe_gemm", "triton", "experts", None, 2, 600000),
    ],
    schema=["class", "backend", "role", "data_type", "launches", "total_ns"],
    orient="row",
)


def test_totals() -> None:
    assert communication_totals(KERNELS).row(0, named=True) == {
        "nccl_total_ns": 321,
        "allreduce_total_ns": 21,
        "other_allreduce_total_ns": 4000,
        "bookkeeping_allreduce_ns": 1,
    }


def test_no_communication_is_zero() -> None:
    found = communication_totals(KERNELS.filter(pl.col("class") == "moe_gemm"))
    assert found.row(0) == (0, 0, 0, 0)


def test_shares_add_up() -> None:
    shares = class_shares(KERNELS)
    assert shares["class"].to_list() == ["moe_gemm", "collective"]
    assert shares["kernels"].to_list() == [1, 5]
    assert shares["time_ratio"].sum() == 1.0
