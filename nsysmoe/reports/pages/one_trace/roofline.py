"""Products of the experts against the limits of the GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nsysmoe.reports import numbers
from nsysmoe.reports.document import Column, Document, Row, Table

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
    columns = (
        Column("Phase", "left"), Column("GEMM", "left"), Column("Launches"), Column("Total (ms)"),
        Column("Rows an expert"), Column("GB/s"), Column("of peak"), Column("TFLOP/s"),
        Column("of peak"), Column("Time bound by bandwidth"), Column("Of limit"),
    )  # fmt: skip
    rows = tuple(
        Row(
            (
                row["phase"],
                row["gemm"],
                numbers.count(row["launches"]),
                numbers.milliseconds(row["total_ns"]),
                numbers.decimal(row["rows_per_expert"]),
                numbers.decimal(row["bytes_per_s"] / 1e9),
                numbers.share(row["bytes_per_s"] / found.peaks.bytes_per_s),
                numbers.decimal(row["flops_per_s"] / 1e12),
                numbers.share(row["flops_per_s"] / found.peaks.flops_per_s),
                numbers.share(row["bandwidth_bound_ratio"]),
                numbers.share(row["limit_ratio"]),
            )
        )
        for row in found.rows
    )
    return Table(f"Roofline of {found.source}", columns, rows)


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
