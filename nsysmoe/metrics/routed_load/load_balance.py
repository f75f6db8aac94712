"""How evenly loads are spread: every definition in use, each by its own name.

They disagree (docs/routing.md), so nothing here is called "balance". Loads are counts of choices:
an expert that a token chose twice counts twice. The last axis is experts, or devices.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


def variation(loads: Floats) -> Floats:
    """Return the coefficient of variation, standard deviation (of all, not a sample) / mean."""
    return _ratio(loads.std(axis=-1), loads.mean(axis=-1))


def max_over_mean(loads: Floats) -> Floats:
    """Return max / mean: 1 is balanced; Megatron's, and the usual imbalance factor."""
    return _ratio(loads.max(axis=-1), loads.mean(axis=-1))


def mean_over_max(loads: Floats) -> Floats:
    """Return mean / max: 1 is balanced; SGLang's balancedness of one layer, and the efficiency."""
    return _ratio(loads.mean(axis=-1), loads.max(axis=-1))


def excess_over_mean(loads: Floats) -> Floats:
    """Return (max - mean) / mean: 0 is balanced; TensorRT-LLM's ratio."""
    return max_over_mean(loads) - 1


def entropy(loads: Floats) -> Floats:
    """Return Shannon's entropy of the shares / ln n: 1 is balanced, 0 is all on one of several."""
    count = loads.shape[-1]
    shares = _ratio(loads, loads.sum(axis=-1, keepdims=True))
    logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    summed = -(shares * logs).sum(axis=-1)
    # One expert always has all of it; there is no entropy to speak of.
    return summed / np.log(count) if count > 1 else np.full_like(summed, np.nan)


def gini(loads: Floats) -> Floats:
    """Return Gini's coefficient: 0 is balanced, (n - 1) / n is all on one of n."""
    count = loads.shape[-1]
    weights = 2 * np.arange(1, count + 1) - count - 1
    return _ratio((np.sort(loads, axis=-1) * weights).sum(axis=-1), count * loads.sum(axis=-1))


def max_over_min(loads: Floats) -> Floats:
    """Return max / min over those with any load."""
    lowest = np.where(loads > 0, loads, np.inf).min(axis=-1)
    return _ratio(loads.max(axis=-1), np.where(np.isfinite(lowest), lowest, 0.0))


MEASURES: dict[str, Callable[[Floats], Floats]] = {
    "cv": variation,
    "max_over_mean": max_over_mean,
    "mean_over_max": mean_over_max,
    "excess_over_mean": excess_over_mean,
    "entropy": entropy,
    "gini": gini,
    "max_over_min": max_over_min,
}


def vllm_balancedness(loads: Floats) -> float | None:
    """Return the sum over layers of means / the sum of maxima: vLLM's log line.

    Args:
        loads: Shape [layers, ranks] (vLLM's own) or [layers, experts].
    """
    return known(_ratio(loads.mean(axis=-1).sum(), loads.max(axis=-1).sum()))


def sglang_balancedness(loads: Floats) -> float | None:
    """Return the mean over layers of mean / max: SGLang's."""
    return mean_known(mean_over_max(loads))


def mean_known(values: Floats) -> float | None:
    """Return the mean of what is defined; None where nothing is."""
    defined = values[np.isfinite(values)]
    return float(defined.mean()) if defined.size else None


def spread(values: Floats) -> dict[str, float | None]:
    """Return ``p50``, ``p95`` and ``max`` of what is defined; None where nothing is."""
    defined = values[np.isfinite(values)]
    if not defined.size:
        return {"p50": None, "p95": None, "max": None}
    p50, p95 = np.percentile(defined, [50, 95])
    return {"p50": float(p50), "p95": float(p95), "max": float(defined.max())}


def known(value: Floats) -> float | None:
    """Return a number, or None where it is not defined."""
    return float(value) if np.isfinite(value) else None


def _ratio(above: Floats, below: Floats) -> Floats:
    """Divide; NaN where there is nothing to divide by."""
    above, below = np.broadcast_arrays(np.asarray(above, float), np.asarray(below, float))
    found: Floats = np.full(above.shape, np.nan)
    np.divide(above, below, out=found, where=below != 0)
    return found
