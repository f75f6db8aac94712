"""ImbalancePredictor: a score of a workload from the text of its prompts alone.

Section 5.3.2 of *Sensitivity Analysis of MoE Kernels under All-to-All Routing*: a larger score
says that tokens are more concentrated, not that experts are less balanced.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nsysmoe.workload.features import Features

# In the order and with the values of the paper; they add up to 1.
WEIGHTS = {
    "repetition": 0.25,
    "top10": 0.20,
    "inv_vocab": 0.15,
    "inv_entropy": 0.10,
    "gini": 0.10,
    "bigram": 0.10,
    "semantic": 0.10,
}


def terms(features: Features) -> dict[str, float]:
    """Return what each weight multiplies, from 0 to 1; features that are not known are left out."""
    values = {
        "repetition": features.repetition_rate,
        "top10": features.top10_concentration,
        "inv_vocab": 1 - features.vocabulary_diversity,
        "inv_entropy": 1 - features.normalized_entropy,
        "gini": features.gini,
        "bigram": features.bigram_concentration,
        "semantic": features.semantic_similarity,
    }
    return {name: value for name, value in values.items() if value is not None}


def score_of(features: Features) -> float:
    """Return Σ w f / Σ w over the features that are known, clamped to [0, 1]."""
    known = terms(features)
    total = math.fsum(WEIGHTS[name] for name in known)
    score = math.fsum(WEIGHTS[name] * value for name, value in known.items()) / total
    return min(max(score, 0.0), 1.0)
