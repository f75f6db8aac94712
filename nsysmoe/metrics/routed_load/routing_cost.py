"""What routing costs: durations of MoE products explained by the work that was routed.

    duration = a + b x active experts + c x sum over experts of ceil(n / BM) x BM

by product, phase and block size, with costs that cannot be negative. A launch is one product of
one layer in one step on one rank; n are the rows that the expert was given on that rank.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

GROUP = ("gemm", "phase", "block_m")
_FEATURES = ("active", "padded_rows")
# a, b and c and as many again: below that a fit says nothing.
_FEWEST = 8
_FOLDS = 5
# Of each launch; the mean over thousands of launches needs few.
_DRAWS = 32
COSTS_SCHEMA = {
    "gemm": pl.String,
    "phase": pl.String,
    "block_m": pl.Int64,
    "launches": pl.Int64,
    "base_ns": pl.Float64,
    "per_expert_ns": pl.Float64,
    "per_row_ns": pl.Float64,
    "r2": pl.Float64,
    "r2_active": pl.Float64,
    "r2_rows": pl.Float64,
    "r2_tokens": pl.Float64,
    "r2_held_out": pl.Float64,
    "error_ratio": pl.Float64,
    "spread_ns": pl.Float64,
}


def rank_work(counts: pl.DataFrame, launches: pl.DataFrame) -> pl.DataFrame:
    """Add to each launch the work that was routed to its rank.

    Args:
        counts: ``step``, ``layer``, ``rank``, ``expert`` (physical), ``rows`` (choices of it).
        launches: ``step``, ``layer``, ``rank``, ``block_m``, and more.

    Returns:
        The launches with ``rows`` (routed to the rank), ``active`` (experts with one row or more),
        ``busiest_rows`` (of one expert) and ``padded_rows``; 0 where nothing was routed.
    """
    key = ["step", "layer", "rank"]
    sizes = launches.select(*key, "block_m").unique()
    padded = (pl.col("rows") + pl.col("block_m") - 1) // pl.col("block_m") * pl.col("block_m")
    work = (
        sizes.join(counts, on=key, how="inner")
        .group_by(*key, "block_m")
        .agg(
            pl.col("rows").sum().cast(pl.Int64),
            pl.len().cast(pl.Int64).alias("active"),
            pl.col("rows").max().cast(pl.Int64).alias("busiest_rows"),
            padded.sum().cast(pl.Int64).alias("padded_rows"),
        )
    )
    measured = ["rows", "active", "busiest_rows", "padded_rows"]
    return launches.join(
        work, on=[*key, "block_m"], how="left", maintain_order="left"
    ).with_columns(pl.col(measured).fill_null(0))


def fit_costs(launches: pl.DataFrame) -> pl.DataFrame:
    """Fit a, b and c by product, phase and block size.

    A feature that does not vary, or repeats another, gets no cost of its own (null): its part is
    in the base. Negative costs are excluded by trying every subset of the two features (the exact
    non-negative least squares for two, Lawson & Hanson 1974).

    Args:
        launches: What ``rank_work`` returned, with ``gemm``, ``phase``, ``step``, ``dur_ns``.

    Returns:
        ``COSTS_SCHEMA``: costs in ns, R squared of the fit and of each feature alone, of steps
        that were held out (null with fewer than two steps), the mean relative error, and the
        standard deviation of what is left (``spread_ns``). R squared is null where durations do
        not vary.
    """
    rows = [
        {**dict(zip(GROUP, key, strict=True)), **_fit(part)}
        for key, part in launches.sort(GROUP, maintain_order=True).group_by(
            *GROUP, maintain_order=True
        )
        if part.height >= _FEWEST
    ]
    return pl.DataFrame(rows, schema=COSTS_SCHEMA)


def predict(costs: pl.DataFrame, launches: pl.DataFrame) -> pl.DataFrame:
    """Add ``predicted_ns`` and ``spread_ns``; null where no cost was fitted for their kind."""
    known = costs.select(*GROUP, "base_ns", "per_expert_ns", "per_row_ns", "spread_ns")
    predicted = (
        pl.col("base_ns")
        + pl.col("per_expert_ns").fill_null(0) * pl.col("active")
        + pl.col("per_row_ns").fill_null(0) * pl.col("padded_rows")
    )
    return (
        launches.join(known, on=GROUP, how="left", maintain_order="left", nulls_equal=True)
        .with_columns(predicted.alias("predicted_ns"))
        .drop("base_ns", "per_expert_ns", "per_row_ns")
    )


def score(launches: pl.DataFrame, by: Sequence[str] = ("gemm", "phase")) -> pl.DataFrame:
    """Compare predictions with what was measured.

    Args:
        launches: What ``predict`` returned; ``dur_ns`` and ``predicted_ns``.
        by: What one row is.

    Returns:
        ``by``, ``launches`` (with a prediction), ``unpredicted``, ``r2`` (null where durations do
        not vary), ``error_ratio`` (mean of absolute errors over mean duration), ``bias_ratio``
        (sum predicted over sum measured, less 1).
    """
    rows = []
    for key, part in launches.group_by(*by, maintain_order=True):
        known = part.drop_nulls("predicted_ns")
        measured = known["dur_ns"].to_numpy().astype(np.float64)
        predicted = known["predicted_ns"].to_numpy()
        rows.append(
            {
                **dict(zip(by, key, strict=True)),
                "launches": known.height,
                "unpredicted": part.height - known.height,
                "r2": _r2(measured, predicted),
                "error_ratio": _error_ratio(measured, predicted),
                "bias_ratio": float(predicted.sum() / measured.sum() - 1) if known.height else None,
            }
        )
    return pl.DataFrame(rows, infer_schema_length=None)


def critical(launches: pl.DataFrame, value: str, spread: str | None = None) -> dict[str, float]:
    """Sum over cells of the slowest rank, and its excess over the mean; ns.

    The slowest of several ranks with equal work is slower than their mean by what work does not
    explain. A prediction without that would call every such cell balanced.

    Args:
        launches: ``ordinal`` (the cell), and ``value`` of every rank.
        value: Column with durations, measured or predicted.
        spread: Column with the standard deviation around a prediction; the slowest is then the
            expectation over normal deviations, from a fixed sequence of draws.
    """
    ordered = launches.sort("ordinal", maintain_order=True)
    cells = ordered["ordinal"].to_numpy()
    values = ordered[value].to_numpy().astype(np.float64)
    starts = np.flatnonzero(np.diff(cells, prepend=cells[0] - 1)) if cells.size else cells[:0]
    if not starts.size:
        return {"critical_ns": 0.0, "mean_ns": 0.0, "excess_ns": 0.0}
    ranks = np.diff(starts, append=cells.size)
    mean = float((np.add.reduceat(values, starts) / ranks).sum())
    if spread is None:
        slowest = float(np.maximum.reduceat(values, starts).sum())
    else:
        slowest = _expected_slowest(values, ordered[spread].to_numpy(), starts)
    return {"critical_ns": slowest, "mean_ns": mean, "excess_ns": slowest - mean}


def whole_cells(launches: pl.DataFrame, value: str) -> pl.DataFrame:
    """Keep the cells in which every rank has a value."""
    return launches.filter(pl.col(value).is_not_null().all().over("ordinal"))


def _expected_slowest(
    values: NDArray[np.float64], spread: NDArray[np.float64], starts: NDArray[np.int64]
) -> float:
    """Return the sum over cells of the expected maximum; a cell begins at each of ``starts``."""
    # Fixed, so that the same inputs give the same digits.
    random = np.random.default_rng(0)
    sums = []
    for _ in range(_DRAWS // 2):
        deviation = random.standard_normal(values.size) * spread
        # Antithetic pairs: their means cancel exactly, so draws move no mean.
        sums += [
            np.maximum.reduceat(values + sign * deviation, starts).sum() for sign in (1.0, -1.0)
        ]
    return float(np.mean(sums))


def _fit(part: pl.DataFrame) -> dict[str, Any]:
    measured = part["dur_ns"].to_numpy().astype(np.float64)
    columns = {name: part[name].to_numpy().astype(np.float64) for name in (*_FEATURES, "rows")}
    used, solution = _non_negative(columns, measured)
    costs = dict(zip(used, solution[1:], strict=True))
    predicted = _design(columns, used) @ solution
    alone = {
        f"r2_{short}": _r2(measured, _line(columns[name], measured))
        for short, name in (("active", "active"), ("rows", "padded_rows"), ("tokens", "rows"))
    }
    return {
        "launches": part.height,
        "base_ns": float(solution[0]),
        "per_expert_ns": costs.get("active"),
        "per_row_ns": costs.get("padded_rows"),
        "r2": _r2(measured, predicted),
        **alone,
        "r2_held_out": _held_out(part["step"].to_numpy(), columns, measured),
        "error_ratio": _error_ratio(measured, predicted),
        "spread_ns": float(
            np.sqrt(((measured - predicted) ** 2).sum() / (measured.size - solution.size))
        ),
    }


def _non_negative(
    columns: dict[str, NDArray[np.float64]], measured: NDArray[np.float64]
) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """Return the features used and (a, their costs) of the best fit without a negative cost."""
    subsets: tuple[tuple[str, ...], ...] = ((), ("active",), ("padded_rows",), _FEATURES)
    rounding = 1e-9 * float(((measured - measured.mean()) ** 2).sum())
    best: tuple[float, tuple[str, ...], NDArray[np.float64]] | None = None
    # Fewer features first: one more has to explain more than rounding does.
    for used in subsets:
        design = _design(columns, used)
        if np.linalg.matrix_rank(design) < design.shape[1]:
            continue
        solution = np.linalg.lstsq(design, measured, rcond=None)[0].astype(np.float64)
        if (solution[1:] < 0).any():
            continue
        left = float(((measured - design @ solution) ** 2).sum())
        if best is None or left < best[0] - rounding:
            best = left, used, solution
    assert best is not None  # noqa: S101 - a constant always fits
    return best[1], best[2]


def _design(columns: dict[str, NDArray[np.float64]], used: Sequence[str]) -> NDArray[np.float64]:
    ones = np.ones(columns["rows"].size)
    return np.column_stack([ones, *(columns[name] for name in used)])


def _line(values: NDArray[np.float64], measured: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the least-squares line over one feature."""
    design = np.column_stack([np.ones(values.size), values])
    line: NDArray[np.float64] = design @ np.linalg.lstsq(design, measured, rcond=None)[0]
    return line


def _held_out(
    steps: NDArray[np.int64], columns: dict[str, NDArray[np.float64]], measured: NDArray[np.float64]
) -> float | None:
    """Return R squared where each step is predicted by a fit on others: every fifth left out."""
    folds = np.unique(steps, return_inverse=True)[1].reshape(-1) % _FOLDS
    predicted = np.full(measured.size, np.nan)
    for fold in np.unique(folds):
        out = folds == fold
        if out.all() or (~out).sum() < _FEWEST:
            continue
        inside = {name: values[~out] for name, values in columns.items()}
        used, solution = _non_negative(inside, measured[~out])
        outside = {name: values[out] for name, values in columns.items()}
        predicted[out] = _design(outside, used) @ solution
    if np.isnan(predicted).any():
        return None
    return _r2(measured, predicted)


def _r2(measured: NDArray[np.float64], predicted: NDArray[np.float64]) -> float | None:
    if not measured.size:
        return None
    spread = float(((measured - measured.mean()) ** 2).sum())
    if spread == 0:
        return None
    return float(1 - ((measured - predicted) ** 2).sum() / spread)


def _error_ratio(measured: NDArray[np.float64], predicted: NDArray[np.float64]) -> float | None:
    if not measured.size or measured.sum() == 0:
        return None
    return float(np.abs(measured - predicted).sum() / measured.sum())
