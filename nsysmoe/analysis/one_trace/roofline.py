"""Which limit of the GPU bounds the experts, and what has to be balanced therefore."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nsysmoe.analysis.routing.routed import Choices, Inputs, read_arm
from nsysmoe.errors import MissingDataError

if TYPE_CHECKING:
    from nsysmoe.analysis.routing.routed import RoutedArm
    from nsysmoe.classes import ClassMap
    from nsysmoe.findings import Finding
    from nsysmoe.peaks import Peak
    from nsysmoe.routing import ModelShape


@dataclass(frozen=True)
class Limits:
    """Peaks that a user gives; None for those of the trace, then of the datasheet."""

    bytes_per_s: float | None = None
    flops_per_s: float | None = None


@dataclass(frozen=True)
class Peaks:
    """Peaks that were used, and where each is from.

    Attributes:
        gpu: Model of the GPUs; None where the trace does not tell one.
        bytes_per_s: Bandwidth of the memory.
        flops_per_s: Dense matrix products in the weights' type.
        bandwidth_from: ``option``, ``trace`` (TARGET_INFO_GPU) or the datasheet.
        flops_from: ``option`` or the datasheet.
    """

    gpu: str | None
    bytes_per_s: float
    flops_per_s: float
    bandwidth_from: str
    flops_from: str


@dataclass(frozen=True)
class Roofline:
    """Products against the limits of the GPU.

    Attributes:
        source: The trace.
        peaks: The limits.
        ridge_rows: Rows an expert at which both limits are equal.
        rows: Rows of ``metrics.roofline.by_limit``, by phase and product.
        phases: The same by phase.
        findings: What to know before believing it.
    """

    source: str
    peaks: Peaks
    ridge_rows: float
    rows: tuple[dict[str, Any], ...]
    phases: tuple[dict[str, Any], ...]
    findings: tuple[Finding, ...]


def roofline(
    inputs: Inputs,
    shape: ModelShape,
    *,
    limits: Limits | None = None,
    class_map: ClassMap | None = None,
    nsys: str | None = None,
) -> Roofline:
    """Set every launch against what its weights and operations take at the GPU's peaks.

    Args:
        inputs: Trace, routing log and record of the run.
        shape: Sizes of the model's experts.
        limits: Peaks to use in the place of those of the trace and the datasheet.
        class_map: What each kernel is for.
        nsys: The ``nsys`` that exports a report.

    Raises:
        MissingDataError: A peak is not known, or too little of the trace.
        NsysmoeError: An input cannot be used.
    """
    # Limits count rows, not blocks: without padding a block is one row.
    choices = Choices(block_m=1, experts=shape.experts)
    arm = read_arm(inputs, choices, class_map=class_map, nsys=nsys)

    from nsysmoe.metrics.kernel_time import roofline as measure  # noqa: PLC0415 - imports polars

    peaks = _peaks(arm, shape.weight_bytes, limits or Limits())
    used = {"bytes_per_s": peaks.bytes_per_s, "flops_per_s": peaks.flops_per_s}
    # Padding's experts are unknown: its steps would seem to read less than they did.
    known = arm.launches.filter(~arm.launches["is_padded"])
    priced = measure.roofline(
        known, weights=shape.weights(), weight_bytes=shape.weight_bytes, **used
    )
    return Roofline(
        source=arm.source,
        peaks=peaks,
        ridge_rows=measure.ridge_rows(shape.weight_bytes, **used),
        rows=tuple(measure.by_limit(priced).to_dicts()),
        phases=tuple(measure.by_limit(priced, ("phase",)).to_dicts()),
        findings=arm.findings,
    )


def _peaks(arm: RoutedArm, weight_bytes: float, limits: Limits) -> Peaks:
    from nsysmoe.peaks import peak_of  # noqa: PLC0415 - reads the table

    gpu = arm.gpu_names[0] if len(arm.gpu_names) == 1 else None
    sheet = peak_of(gpu) if gpu else None
    bandwidth, bandwidth_from = _bandwidth(arm, sheet, limits.bytes_per_s)
    rate = limits.flops_per_s or (sheet.flops_per_s(weight_bytes) if sheet else None)
    names = ", ".join(arm.gpu_names) or "a GPU that the trace does not name"
    if bandwidth is None:
        raise MissingDataError(f"the memory bandwidth of {names} is not known: give --bandwidth")
    if rate is None:
        raise MissingDataError(
            f"the peak of {names} for weights of {weight_bytes:g} bytes is not known: give --flops"
        )
    flops_from = "option" if limits.flops_per_s or sheet is None else sheet.source
    return Peaks(gpu, bandwidth, rate, bandwidth_from, flops_from)


def _bandwidth(arm: RoutedArm, sheet: Peak | None, given: float | None) -> tuple[float | None, str]:
    if given:
        return given, "option"
    if arm.bandwidth:
        return float(arm.bandwidth), "trace"
    return (sheet.bytes_per_s, sheet.source) if sheet else (None, "")
