"""ImbalancePredictor once more, from section 5.3.2 alone: plain Python, all pairs, no numpy."""

from __future__ import annotations

import math
import re
from collections import Counter
from fractions import Fraction
from itertools import combinations, pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def top10(counts: Counter[object]) -> Fraction:
    return Fraction(sum(n for _, n in counts.most_common(10)), sum(counts.values()))


def gini(counts: Counter[object]) -> Fraction:
    """Half the mean absolute difference over the mean: the definition by pairs."""
    values = list(counts.values())
    pairs = sum(abs(a - b) for a in values for b in values)
    return Fraction(pairs, 2 * len(values) * sum(values))


def cosine(prompts: Sequence[str]) -> float | None:
    if len(prompts) < 2:
        return None
    bags = [Counter(re.findall(r"(?u)\b\w\w+\b", text.lower())) for text in prompts]
    seen = Counter(word for bag in bags for word in bag)
    vectors = [
        {w: n * (math.log((1 + len(bags)) / (1 + seen[w])) + 1) for w, n in bag.items()}
        for bag in bags
    ]
    found = []
    for a, b in combinations(vectors, 2):
        size = math.hypot(*a.values()) * math.hypot(*b.values())
        dot = math.fsum(a[w] * b[w] for w in a if w in b)
        found.append(dot / size if size else 0.0)
    return math.fsum(found) / len(found)


def predict(prompts: Sequence[str], *, semantic: bool = True) -> dict[str, float | None]:
    """Return the features and the score for words between spaces."""
    stream = [token for prompt in prompts for token in prompt.split()]
    counts: Counter[object] = Counter(stream)
    bigrams: Counter[object] = Counter(pairwise(stream))
    n, distinct = len(stream), len(counts)
    entropy = -math.fsum(c / n * math.log2(c / n) for c in counts.values())
    raw = cosine(prompts) if semantic else None
    features: dict[str, float | None] = {
        "repetition_rate": float(1 - Fraction(distinct, n)),
        "vocabulary_diversity": distinct / n,
        "top10_concentration": float(top10(counts)),
        "entropy_bits": entropy,
        "normalized_entropy": entropy / math.log2(max(distinct, 2)),
        "gini": float(gini(counts)),
        "bigram_concentration": float(top10(bigrams)) if bigrams else None,
        "semantic_similarity": None if raw is None else (raw + 1) / 2,
    }
    return {**features, "score": _score(features)}


def _score(f: dict[str, float | None]) -> float:
    parts = [
        (0.25, f["repetition_rate"]),
        (0.20, f["top10_concentration"]),
        (0.15, 1 - (f["vocabulary_diversity"] or 0)),
        (0.10, 1 - (f["normalized_entropy"] or 0)),
        (0.10, f["gini"]),
        (0.10, f["bigram_concentration"]),
        (0.10, f["semantic_similarity"]),
    ]
    known = [(weight, value) for weight, value in parts if value is not None]
    score = sum(w * v for w, v in known) / sum(w for w, _ in known)
    return min(1.0, max(0.0, score))
