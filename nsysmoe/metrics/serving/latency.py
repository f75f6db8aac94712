"""Latencies of served requests: percentiles, throughput, goodput."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

PERCENTILES = (50, 90, 95, 99)
# What run.json keeps of a round, and what a limit of goodput can be on.
MEASURES = ("ttft", "tpot", "e2e")


@dataclass(frozen=True)
class Served:
    """Requests that were answered whole, one value each; NaN where a request has none.

    Attributes:
        ttft_s: Time to the first token.
        tpot_s: Time per output token after the first.
        e2e_s: Time to the last token.
        prompt_tokens: NaN where the server does not count.
        output_tokens: Tokens generated.
    """

    ttft_s: NDArray[np.float64]
    tpot_s: NDArray[np.float64]
    e2e_s: NDArray[np.float64]
    prompt_tokens: NDArray[np.float64]
    output_tokens: NDArray[np.float64]


def percentiles(
    values: NDArray[np.float64], shares: Sequence[float] = PERCENTILES
) -> dict[str, float | None]:
    """Return ``p50`` and so on of what is known, interpolated linearly; None where nothing is."""
    known = values[np.isfinite(values)]
    if not known.size:
        return {f"p{share:g}": None for share in shares}
    found = np.percentile(known, shares)
    return {f"p{share:g}": float(one) for share, one in zip(shares, found, strict=True)}


def summary(served: Served, wall_s: float) -> dict[str, Any]:
    """Return a round's summary with the keys of run.json, and ``p95`` beside them.

    Args:
        served: Answered requests.
        wall_s: From the first request that was due to the last answer.
    """
    written = float(served.output_tokens.sum())
    read = float(np.nansum(served.prompt_tokens))
    found: dict[str, Any] = {
        "wall_s": wall_s,
        "requests": int(served.e2e_s.size),
        "output_tok_per_s": written / wall_s if wall_s else None,
        "total_tok_per_s": (written + read) / wall_s if wall_s else None,
    }
    for name in MEASURES:
        values = getattr(served, f"{name}_s")
        found |= {f"{name}_{key}_s": value for key, value in percentiles(values).items()}
    return found


def with_unanswered(values: NDArray[np.float64], unanswered: int, share: float) -> float | None:
    """Return a percentile that counts unanswered requests as never answered; None if it is one.

    The p99 of those that were answered says nothing of a server that drops one in fifty.
    """
    known = np.sort(values[np.isfinite(values)])
    place = share / 100 * (known.size + unanswered - 1)
    if not known.size or place > known.size - 1:
        return None
    return float(np.interp(place, np.arange(known.size), known))


def good(served: Served, limits_s: Mapping[str, float]) -> NDArray[np.bool_]:
    """Tell which requests met every limit; one without a TPOT (one token) meets that limit.

    Args:
        served: Answered requests.
        limits_s: By ``MEASURES``, in s; a value equal to its limit meets it.

    Returns:
        Goodput is their number over the wall time (Zhong et al. 2024, DistServe, section 2).
    """
    met = np.ones(served.e2e_s.size, dtype=bool)
    for name, limit in limits_s.items():
        values = getattr(served, f"{name}_s")
        met &= ~(values > limit)
    return met
