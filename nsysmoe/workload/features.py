"""Statistics of a token stream: section 5.3.2 of the paper, formula by formula."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]

TOP = 10


@dataclass(frozen=True)
class Features:
    """The features of section 5.3.2; all but ``entropy_bits`` from 0 to 1.

    Attributes:
        repetition_rate: 1 - V / n; V distinct tokens among n.
        vocabulary_diversity: V / n.
        top10_concentration: Share of the 10 most frequent tokens.
        entropy_bits: H = -Σ p log2 p over tokens.
        normalized_entropy: H / log2(max(V, 2)).
        gini: Σ (2i - V - 1) c_i / (V n), counts c in ascending order, i from 1.
        bigram_concentration: Share of the 10 most frequent bigrams of the stream; None for a
            stream of one token, which has none.
        semantic_similarity: Mean pairwise cosine, from [-1, 1] to [0, 1]; None where it was not
            asked for, or there is one prompt.
    """

    repetition_rate: float
    vocabulary_diversity: float
    top10_concentration: float
    entropy_bits: float
    normalized_entropy: float
    gini: float
    bigram_concentration: float | None
    semantic_similarity: float | None = None


def features_of(stream: Ints, similarity: float | None = None) -> Features:
    """Return the features of a token stream, prompts one after the other without a mark between.

    Args:
        stream: int64 token ids, not empty.
        similarity: Mean pairwise cosine of the prompts, -1 to 1; None leaves the feature out.

    Raises:
        ValueError: The stream is empty.
    """
    if len(stream) == 0:
        raise ValueError("a stream without tokens has no features")
    _, positions, counts = np.unique(stream, return_inverse=True, return_counts=True)
    diversity = len(counts) / len(stream)
    entropy = entropy_bits(counts)
    return Features(
        repetition_rate=1 - diversity,
        vocabulary_diversity=diversity,
        top10_concentration=concentration(counts),
        entropy_bits=entropy,
        normalized_entropy=entropy / math.log2(max(len(counts), 2)),
        gini=gini(counts),
        bigram_concentration=_bigram_concentration(positions.astype(np.int64), len(counts)),
        semantic_similarity=None if similarity is None else (similarity + 1) / 2,
    )


def concentration(counts: Ints) -> float:
    """Return the share of the 10 largest counts; ties do not matter, for they are equal."""
    largest = np.sort(counts)[-TOP:]
    return int(largest.sum()) / int(counts.sum())


def entropy_bits(counts: Ints) -> float:
    """Return -Σ p log2 p of counts above 0."""
    shares = counts / counts.sum()
    # Exactly 0, not -0.0, where there is one token.
    return math.fsum(-shares * np.log2(shares)) + 0.0


def gini(counts: Ints) -> float:
    """Return Σ (2i - V - 1) c_i / (V n); 0 where all counts are equal."""
    number = len(counts)
    weights = 2 * np.arange(1, number + 1, dtype=np.int64) - number - 1
    return int(weights @ np.sort(counts)) / (number * int(counts.sum()))


def _bigram_concentration(positions: Ints, vocabulary: int) -> float | None:
    if len(positions) < 2:
        return None
    _, counts = np.unique(positions[:-1] * vocabulary + positions[1:], return_counts=True)
    return concentration(counts)
