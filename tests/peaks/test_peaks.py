"""Peaks of GPUs by the names that nsys gives them."""

from __future__ import annotations

import pytest

from nsysmoe.peaks import peak_of


@pytest.mark.parametrize(
    ("name", "bandwidth", "dense", "fp8"),
    [
        ("NVIDIA A100-SXM4-40GB", 1555, 312, None),
        ("NVIDIA A100-PCIE-40GB", 1555, 312, None),
        ("NVIDIA A100-SXM4-80GB", 2039, 312, None),
        ("NVIDIA A100 80GB PCIe", 1935, 312, None),
        ("NVIDIA H100 80GB HBM3", 3350, 989.5, 1979),
        ("NVIDIA H100 PCIe", 2039, 756.5, 1513),
        ("NVIDIA H100 NVL", 3938, 835.5, 1670.5),
        ("NVIDIA H200", 4800, 989.5, 1979),
        ("NVIDIA H200 NVL", 4800, 835.5, 1670.5),
        ("NVIDIA B200", 8000, 2250, 4500),
        ("NVIDIA L40S", 864, 362.05, 733),
    ],
)
def test_known_gpus(name: str, bandwidth: float, dense: float, fp8: float | None) -> None:
    peak = peak_of(name)
    assert peak is not None
    assert peak.bytes_per_s == bandwidth * 1e9
    assert peak.flops_per_s(2) == dense * 1e12
    assert peak.flops_per_s(1) == (fp8 and fp8 * 1e12)
    # Weights of 4 bits are multiplied as 16, those of 32 bits not at all by tensor cores.
    assert peak.flops_per_s(0.5) == dense * 1e12
    assert peak.flops_per_s(4) is None
    assert peak.source


@pytest.mark.parametrize("name", ["Tesla T4", "NVIDIA GB200", "", "NVIDIA L40"])
def test_unknown_gpus(name: str) -> None:
    assert peak_of(name) is None
