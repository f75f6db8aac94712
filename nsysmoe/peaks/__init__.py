"""Peaks of GPUs, from the vendor's datasheets (``peaks.toml``)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from nsysmoe.bounded_files import shipped_toml


@dataclass(frozen=True)
class Peak:
    """What one model of GPU can do at most.

    Attributes:
        pattern: Regular expression of the names that nsys and CUDA give it.
        bytes_per_s: Bandwidth of its memory.
        flops_16: Dense bfloat16 and float16 products with tensor cores, operations a second.
        flops_8: The same in FP8; None where it has none.
        source: Where the figures were published.
    """

    pattern: str
    bytes_per_s: float
    flops_16: float
    flops_8: float | None
    source: str

    def flops_per_s(self, weight_bytes: float) -> float | None:
        """Return the peak for weights of this size; None where the GPU has no such products.

        Weights below 8 bits are expanded before they are multiplied, to 16.
        """
        if weight_bytes == 1:
            return self.flops_8
        return self.flops_16 if weight_bytes <= 2 else None


def peak_of(name: str) -> Peak | None:
    """Return the peaks of a GPU by its name; None where the table does not have it."""
    for peak in _table():
        if re.search(peak.pattern, name):
            return peak
    return None


@cache
def _table() -> tuple[Peak, ...]:
    return tuple(
        Peak(
            entry["name"],
            entry["bandwidth_gb_s"] * 1e9,
            entry["dense_16_bit_tflops"] * 1e12,
            entry["dense_fp8_tflops"] * 1e12 if "dense_fp8_tflops" in entry else None,
            entry["source"],
        )
        for entry in shipped_toml("nsysmoe.peaks", "peaks.toml")["gpu"]
    )
