"""What routing costs: the fit, its score on another run, the sums, and the tax of replicas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nsysmoe.reports import numbers
from nsysmoe.reports.document import Document, Table
from nsysmoe.reports.tables import left, right, table

if TYPE_CHECKING:
    from nsysmoe.analysis.routing.routing_cost import Explanation
    from nsysmoe.reports.tables import Values

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
_OF_LAUNCHES = (
    left("Phase", "phase"),
    left("GEMM", "gemm"),
    right("Launches", "launches", numbers.count),
)


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
    rows = sorted(found.costs, key=lambda row: (row["phase"], row["gemm"], row["block_m"]))
    columns = (
        *_OF_LAUNCHES[:2],
        right("BM", "block_m", str),
        _OF_LAUNCHES[2],
        right("a (us)", "base_ns", numbers.microseconds),
        right("b: an expert (us)", "per_expert_ns", numbers.microseconds),
        right("c: a row (us)", "per_row_ns", numbers.microseconds),
        right("b + c × BM (us)", _one_more, numbers.microseconds),
        right("R²", "r2", _r2),
        right("other steps", "r2_held_out", _r2),
        right("active alone", "r2_active", _r2),
        right("tokens alone", "r2_tokens", _r2),
        right("Error", "error_ratio", numbers.share),
    )
    return table(f"Fit on {found.source}", rows, columns)


def _scores(found: Explanation) -> Table:
    columns = (
        *_OF_LAUNCHES,
        right("Not predicted", "unpredicted", numbers.count),
        right("R²", "r2", _r2),
        right("Error", "error_ratio", numbers.share),
        right("Bias", "bias_ratio", numbers.change),
    )
    return table(f"That fit on {found.against}, which it has not seen", found.scores, columns)


def _sums(found: Explanation) -> Table:
    columns = (
        left("", "what", _WHAT.__getitem__),
        right("Critical (ms)", "critical_ns", numbers.milliseconds),
        right("off by", "critical_error", _error),
        right("Excess (ms)", "excess_ns", numbers.milliseconds),
        right("off by", "excess_error", _error),
    )
    known, cells = found.cells["predicted"], found.cells["cells"]
    part = f"{known:,} of {cells:,}" if found.against else f"{cells:,}"
    caption = f"Slowest rank of {part} cells of {found.against or found.source}"
    return table(caption, found.sums, columns, "phase")


def _tax(found: Explanation) -> Table:
    columns = (
        left("Phase", "phase"),
        right("Tokens", "tokens", numbers.count),
        right("By placement (us)", "change_ns", numbers.microseconds),
        right("of active experts (us)", "experts_ns", numbers.microseconds),
        right("of padded rows (us)", "rows_ns", numbers.microseconds),
        right("Active experts, first placement", "active_before"),
        right("second", "active_after"),
        right("Measured, first trace (us)", "measured_before_ns", numbers.microseconds),
        right("second (us)", "measured_after_ns", numbers.microseconds),
    )
    return table("Tax and gain: MoE time of the slowest rank a token", found.tax, columns)


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


def _one_more(row: Values) -> float | None:
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
