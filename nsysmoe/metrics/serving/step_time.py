"""What a step of continuous batching takes, fitted to what requests were served.

    time of a step = base + per_sequence x sequences + per_prompt_token x prompt tokens

with the sequences that generate in it and the prompt tokens that it reads.

A request of n + 1 tokens stays for n steps after its first token, so its decoding takes
base x n + per_sequence x (sum of sequences over these steps) + per_prompt_token x (prompt tokens
read meanwhile). Nothing of the engine's own counts is needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

# As many requests again as there are costs, and some.
FEWEST = 12
# Below it two costs cannot be told apart: their columns are nearly one.
_LEAST_ANGLE = 1e-3


@dataclass(frozen=True)
class Spans:
    """Answered requests, one value each; times in s on one clock.

    Attributes:
        first: When the first token came.
        last: When the last one came.
        prompt_tokens: Length of the prompt.
        output_tokens: Tokens generated.
    """

    first: Floats
    last: Floats
    prompt_tokens: Floats
    output_tokens: Floats


@dataclass(frozen=True)
class StepTime:
    """Costs in s, none below 0.

    Attributes:
        base: Of any step.
        per_sequence: Of a sequence that generates.
        per_prompt_token: Of a prompt token that is read.
        error_ratio: Mean absolute error of decode times over their mean, on every fifth request
            in turn left out of the fit.
        most_sequences: The most that generated at once: beyond it costs are extrapolated.
        is_separable: Whether base and cost of a sequence could be told apart.
    """

    base: float
    per_sequence: float
    per_prompt_token: float
    error_ratio: float
    most_sequences: int
    is_separable: bool

    def of(self, sequences: float, prompt_tokens: float) -> float:
        """Return the time of a step, s."""
        return self.base + self.per_sequence * sequences + self.per_prompt_token * prompt_tokens


def fit(spans: Spans) -> StepTime | None:
    """Fit the three costs; None of fewer than ``FEWEST`` requests with two tokens and more."""
    used = (spans.output_tokens > 1) & (spans.last > spans.first)
    if used.sum() < FEWEST:
        return None
    design, most = _design(spans, used)
    measured = (spans.last - spans.first)[used]
    costs = non_negative(design, measured)
    base, per_sequence, per_prompt_token = (float(cost) for cost in costs)
    return StepTime(
        base,
        per_sequence,
        per_prompt_token,
        _held_out_error(design, measured),
        most,
        _separable(design[:, :2]),
    )


def non_negative(design: Floats, measured: Floats) -> Floats:
    """Return the least-squares costs of columns, none below 0, by trying every subset of them.

    For a handful of columns that is exact (Lawson & Hanson 1974, chapter 23).
    """
    count = design.shape[1]
    best, least = np.zeros(count), float((measured**2).sum())
    for size in range(1, count + 1):
        for columns in combinations(range(count), size):
            part = design[:, columns]
            solution = np.linalg.lstsq(part, measured, rcond=None)[0]
            left = float(((measured - part @ solution) ** 2).sum())
            if (solution >= 0).all() and left < least * (1 - 1e-12):
                best, least = np.zeros(count), left
                best[list(columns)] = solution
    return best


def _design(spans: Spans, used: NDArray[np.bool_]) -> tuple[Floats, int]:
    """Return steps, sequences over these steps and prompt tokens meanwhile, a row a request."""
    steps = (spans.output_tokens - 1)[used]
    first, last = spans.first[used], spans.last[used]
    edges = np.concatenate([spans.first, spans.last])
    order = np.argsort(edges, kind="stable")
    change = np.concatenate([np.ones(spans.first.size), -np.ones(spans.last.size)])[order]
    at, running = edges[order], np.cumsum(change)
    area = np.concatenate([[0.0], np.cumsum(running[:-1] * np.diff(at))])
    sequences = (np.interp(last, at, area) - np.interp(first, at, area)) / (last - first)
    began = np.argsort(spans.first, kind="stable")
    read = np.concatenate([[0.0], np.cumsum(np.nan_to_num(spans.prompt_tokens)[began])])
    upto = [np.searchsorted(spans.first[began], moment, side="right") for moment in (first, last)]
    design = np.column_stack([steps, steps * sequences, read[upto[1]] - read[upto[0]]])
    return design, int(running.max())


def _held_out_error(design: Floats, measured: Floats) -> float:
    folds = np.arange(measured.size) % 5
    errors = np.empty(measured.size)
    for fold in range(5):
        out = folds == fold
        errors[out] = np.abs(
            measured[out] - design[out] @ non_negative(design[~out], measured[~out])
        )
    return float(errors.mean() / measured.mean())


def _separable(columns: Floats) -> bool:
    lengths = np.linalg.norm(columns, axis=0)
    if not lengths.all():
        return False
    cosine = float((columns[:, 0] / lengths[0]) @ (columns[:, 1] / lengths[1]))
    return 1 - cosine > _LEAST_ANGLE
