"""Products of the experts against the limits of the GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nsysmoe.reports import numbers
from nsysmoe.reports.document import Document, Table
from nsysmoe.reports.tables import left, right, table

if TYPE_CHECKING:
    from nsysmoe.analysis.one_trace.roofline import Roofline

_NOTE = (
    "Bytes are those of the matrices of active experts, each read once, operations those of the "
    "tokens without padding: what no kernel can avoid. Of limit: the longer of both at peak over "
    "the duration; 100 % is at the roof."
)


def roofline_page(found: Roofline) -> Document:
    """Return limits by phase and product."""
    return Document(
        title=f"Roofline of {found.source}",
        tables=(_table(found),),
        data=_data(found),
        records=found.rows,
        findings=found.findings,
        notes=(_NOTE, _peaks(found)),
        lead=tuple(_sentence(row, found.ridge_rows) for row in found.phases),
    )


def _table(found: Roofline) -> Table:
    peaks = found.peaks
    columns = (
        left("Phase", "phase"),
        left("GEMM", "gemm"),
        right("Launches", "launches", numbers.count),
        right("Total (ms)", "total_ns", numbers.milliseconds),
        right("Rows an expert", "rows_per_expert"),
        right("GB/s", lambda row: row["bytes_per_s"] / 1e9),
        right("of peak", lambda row: row["bytes_per_s"] / peaks.bytes_per_s, numbers.share),
        right("TFLOP/s", lambda row: row["flops_per_s"] / 1e12),
        right("of peak", lambda row: row["flops_per_s"] / peaks.flops_per_s, numbers.share),
        right("Time bound by bandwidth", "bandwidth_bound_ratio", numbers.share),
        right("Of limit", "limit_ratio", numbers.share),
    )
    return table(f"Roofline of {found.source}", found.rows, columns)


def _sentence(row: dict[str, Any], ridge: float) -> str:
    share = row["bandwidth_bound_ratio"]
    experts = numbers.decimal(row["rows_per_expert"])
    where = f"{experts} rows an expert, {numbers.decimal(ridge)} are where both limits meet"
    reached = f"it runs at {numbers.share(row['limit_ratio'])} of its limit"
    if share > 0.5:
        return (
            f"{row['phase'].capitalize()} is bound by the bandwidth of weights in "
            f"{numbers.share(share)} of its time ({where}), {reached}: balance active experts, not "
            "tokens."
        )
    return (
        f"{row['phase'].capitalize()} is bound by computation in {numbers.share(1 - share)} of its "
        f"time ({where}), {reached}: balance tokens."
    )


def _peaks(found: Roofline) -> str:
    peaks = found.peaks
    return (
        f"Peaks of {peaks.gpu or 'the GPUs'}: {numbers.decimal(peaks.bytes_per_s / 1e9)} GB/s "
        f"({peaks.bandwidth_from}), {numbers.decimal(peaks.flops_per_s / 1e12)} TFLOP/s "
        f"({peaks.flops_from})."
    )


def _data(found: Roofline) -> dict[str, Any]:
    peaks = found.peaks
    return {
        "schema_version": 1,
        "source": found.source,
        "peaks": {
            "gpu": peaks.gpu,
            "bytes_per_s": peaks.bytes_per_s,
            "bandwidth_from": peaks.bandwidth_from,
            "flops_per_s": peaks.flops_per_s,
            "flops_from": peaks.flops_from,
        },
        "ridge_rows": found.ridge_rows,
        "rows": list(found.rows),
        "phases": list(found.phases),
        "findings": [finding.to_dict() for finding in found.findings],
    }
