"""What routing costs: the fit, its score on another run, the sums, and the tax of replicas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nsysmoe.reports import numbers
from nsysmoe.reports.document import Column, Document, Row, Table

if TYPE_CHECKING:
    from nsysmoe.analysis.routing.routing_cost import Explanation

_WHAT = {
    "measured": "measured",
    "predicted": "predicted",
    "no_change": "baseline: no change of placement",
    "perfect_balance": "baseline: perfect balance",
    "baseline": "baseline: first trace as measured",
}
_MODEL = (
    "duration = a + b × active experts + c × Σ ceil(n / BM) × BM, n the rows of an expert on the "
    "rank; mixed steps count as prefill. A cost of n/a is one that did not vary or would have been "
    "negative. Where no expert has more than BM rows, active experts and padded rows are one "
    "number: b + c × BM is what one more active expert costs."
)
_SLOWEST = (
    "Predicted sums expect the slowest of ranks with equal work to be slower than their mean by "
    "what the fit leaves unexplained."
)
_SCORE = (
    "R² of other steps: each step predicted by a fit that has not seen it. R² says little where "
    "work hardly varies: read the error there."
)
# Tokens that explain nearly what the whole model does need no experts beside them.
_NEARLY = 0.95


def routing_cost_page(found: Explanation) -> Document:
    """Return the fit and, with a second trace, how it predicts that one."""
    tables = [_costs(found)]
    if found.scores:
        tables.append(_scores(found))
    tables.append(_sums(found))
    if found.tax:
        tables.append(_tax(found))
    return Document(
        title=f"What routing costs in {found.source}",
        tables=tuple(tables),
        data=_data(found),
        records=found.costs,
        findings=found.findings,
        notes=(_MODEL, _SLOWEST, _SCORE),
        lead=tuple(_lead(found)),
    )


def _costs(found: Explanation) -> Table:
    columns = (
        Column("Phase", "left"), Column("GEMM", "left"), Column("BM"), Column("Launches"),
        Column("a (us)"), Column("b: an expert (us)"), Column("c: a row (us)"),
        Column("b + c × BM (us)"), Column("R²"), Column("other steps"), Column("active alone"),
        Column("tokens alone"), Column("Error"),
    )  # fmt: skip
    rows = tuple(
        Row(
            (
                row["phase"],
                row["gemm"],
                str(row["block_m"]),
                numbers.count(row["launches"]),
                *(
                    numbers.microseconds(row[name])
                    for name in ("base_ns", "per_expert_ns", "per_row_ns")
                ),
                numbers.microseconds(_one_more(row)),
                *(_r2(row[name]) for name in ("r2", "r2_held_out", "r2_active", "r2_tokens")),
                numbers.share(row["error_ratio"]),
            )
        )
        for row in sorted(found.costs, key=lambda row: (row["phase"], row["gemm"], row["block_m"]))
    )
    return Table(f"Fit on {found.source}", columns, rows)


def _scores(found: Explanation) -> Table:
    columns = (
        Column("Phase", "left"), Column("GEMM", "left"), Column("Launches"),
        Column("Not predicted"), Column("R²"), Column("Error"), Column("Bias"),
    )  # fmt: skip
    rows = tuple(
        Row(
            (
                row["phase"],
                row["gemm"],
                numbers.count(row["launches"]),
                numbers.count(row["unpredicted"]),
                _r2(row["r2"]),
                numbers.share(row["error_ratio"]),
                numbers.change(row["bias_ratio"]),
            )
        )
        for row in found.scores
    )
    return Table(f"That fit on {found.against}, which it has not seen", columns, rows)


def _sums(found: Explanation) -> Table:
    columns = (
        Column("", "left"), Column("Critical (ms)"), Column("off by"), Column("Excess (ms)"),
        Column("off by"),
    )  # fmt: skip
    rows = tuple(
        Row(
            (
                _WHAT[row["what"]],
                numbers.milliseconds(row["critical_ns"]),
                _error(row["critical_error"]),
                numbers.milliseconds(row["excess_ns"]),
                _error(row["excess_error"]),
            ),
            group=row["phase"],
        )
        for row in found.sums
    )
    known, cells = found.cells["predicted"], found.cells["cells"]
    part = f"{known:,} of {cells:,}" if found.against else f"{cells:,}"
    caption = f"Slowest rank of {part} cells of {found.against or found.source}"
    return Table(caption, columns, rows)


def _tax(found: Explanation) -> Table:
    columns = (
        Column("Phase", "left"),
        Column("Tokens"),
        Column("By placement (us)"),
        Column("of active experts (us)"),
        Column("of padded rows (us)"),
        Column("Active experts, first placement"),
        Column("second"),
        Column("Measured, first trace (us)"),
        Column("second (us)"),
    )
    times = ("change", "experts", "rows")
    rows = tuple(
        Row(
            (
                row["phase"],
                numbers.count(row["tokens"]),
                *(numbers.microseconds(row[f"{name}_ns"]) for name in times),
                numbers.decimal(row["active_before"]),
                numbers.decimal(row["active_after"]),
                numbers.microseconds(row["measured_before_ns"]),
                numbers.microseconds(row["measured_after_ns"]),
            )
        )
        for row in found.tax
    )
    return Table("Tax and gain: MoE time of the slowest rank a token", columns, rows)


def _lead(found: Explanation) -> list[str]:
    sentences = [
        sentence
        for phase in ("decode", "prefill")
        if (sentence := _phase_sentence(found, phase)) is not None
    ]
    sums = {(row["phase"], row["what"]): row for row in found.sums}
    if found.against is not None and (predicted := sums.get(("all", "predicted"))):
        measured = sums["all", "measured"]
        unmoved = sums["all", "no_change"]
        sentences.append(
            "The fit on the first trace predicts the slowest ranks of the second, which it has not "
            f"seen, at "
            f"{numbers.milliseconds(predicted['critical_ns'])} ms, measured "
            f"{numbers.milliseconds(measured['critical_ns'])} "
            f"({numbers.change(predicted['critical_error'])}), excess "
            f"{numbers.milliseconds(predicted['excess_ns'])} ms, measured "
            f"{numbers.milliseconds(measured['excess_ns'])}; with the first placement the same "
            f"tokens would take {numbers.milliseconds(unmoved['critical_ns'])} ms."
        )
    if found.tax:
        sentences.append(_tax_sentence(found))
    return sentences


def _phase_sentence(found: Explanation, phase: str) -> str | None:
    """Say what explains the product that most launches of the phase are, w13 before w2."""
    rows = [row for row in found.costs if row["phase"] == phase and row["r2"] is not None]
    if not rows:
        return None
    row = max(rows, key=lambda row: (row["launches"], row["gemm"] == "w13"))
    tokens = row["r2_tokens"] or 0.0
    explained = f"{row['gemm']} (blocks of {row['block_m']} rows): R² {row['r2']:.3f}"
    if tokens >= _NEARLY * row["r2"]:
        return f"In {phase} tokens explain durations of {explained}, tokens alone {tokens:.3f}."
    return (
        f"In {phase} active experts, counted in blocks, explain durations of {explained}, tokens "
        f"alone {tokens:.3f}; one more active expert costs {numbers.microseconds(_one_more(row))} "
        "us."
    )


def _tax_sentence(found: Explanation) -> str:
    sentence = f"By the second placement {', '.join(map(_tax_part, found.tax))}"
    if found.break_even is None:
        return f"{sentence}: no mix of tokens turns that around."
    return (
        f"{sentence}: it breaks even at {numbers.decimal(found.break_even)} prompt tokens for each "
        "generated one."
    )


def _tax_part(row: dict[str, Any]) -> str:
    change = row["change_ns"]
    if change == 0:
        return f"{row['phase']} costs the same"
    verb = "pays" if change > 0 else "gains"
    return f"{row['phase']} {verb} {numbers.microseconds(abs(change))} us a token"


def _one_more(row: dict[str, Any]) -> float | None:
    """Return what an expert that was given its first row costs."""
    if row["per_expert_ns"] is None and row["per_row_ns"] is None:
        return None
    return float((row["per_expert_ns"] or 0.0) + (row["per_row_ns"] or 0.0) * row["block_m"])


def _r2(value: float | None) -> str:
    return numbers.UNKNOWN if value is None else f"{value:.3f}"


def _error(value: float | None) -> str:
    return "" if value is None else numbers.change(value)


def _data(found: Explanation) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "source": found.source,
        "against": found.against,
        "costs": list(found.costs),
        "scores": list(found.scores),
        "sums": list(found.sums),
        **found.cells,
        "tax": list(found.tax),
        "break_even_prompt_tokens": found.break_even,
        "findings": [finding.to_dict() for finding in found.findings],
    }
