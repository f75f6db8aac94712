"""How alike prompts are: the mean cosine over all pairs of TF-IDF vectors, without the pairs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Ints = NDArray[np.int64]

# The words of scikit-learn's TfidfVectorizer: two word characters or more, in lower case.
_WORD = re.compile(r"\b\w\w+\b")


def mean_cosine(prompts: Sequence[str]) -> float | None:
    """Return the mean cosine over all pairs of prompts, 0 to 1; None for fewer than two.

    TF-IDF as scikit-learn's ``TfidfVectorizer`` computes it by default, which the paper does not
    spell out: words of two or more word characters in lower case, tf the count in the prompt, idf
    = ln((1 + n) / (1 + df)) + 1. With unit vectors u the sum over ordered pairs is
    |Σ u|² - Σ |u|², so that time and memory grow with the words, never with n². A prompt without
    words is orthogonal to all.
    """
    n = len(prompts)
    if n < 2:
        return None
    places, words, counts = _counted(prompts)
    if len(words) == 0:
        return 0.0
    in_documents = np.bincount(words)
    weights = counts * (np.log((1 + n) / (1 + in_documents)) + 1)[words]
    norms = np.sqrt(np.bincount(places, weights**2, minlength=n))
    total = np.bincount(words, weights / norms[places])
    pairs = float(total @ total) - np.count_nonzero(norms)
    # Rounding alone could leave the range that a mean of such cosines has.
    return min(max(pairs / (n * (n - 1)), 0.0), 1.0)


def _counted(prompts: Sequence[str]) -> tuple[Ints, Ints, NDArray[np.float64]]:
    """Return a row a prompt and word: number of the prompt, of the word, and its count."""
    numbers: dict[str, int] = {}
    places, words, counts = [], [], []
    for place, prompt in enumerate(prompts):
        found = [numbers.setdefault(word, len(numbers)) for word in _WORD.findall(prompt.lower())]
        distinct, times = np.unique(np.array(found, dtype=np.int64), return_counts=True)
        places.append(np.full(len(distinct), place, dtype=np.int64))
        words.append(distinct)
        counts.append(times)
    return (
        np.concatenate(places),
        np.concatenate(words),
        np.concatenate(counts).astype(np.float64),
    )
