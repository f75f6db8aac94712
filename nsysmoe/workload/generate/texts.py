"""Prompts from a recipe: sentences until a length in tokens is reached."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING

from nsysmoe.workload.generate.draws import Draws

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nsysmoe.workload.generate.material import Material
    from nsysmoe.workload.generate.recipe import Recipe
    from nsysmoe.workload.tokenizers import Tokenizer

# Sentences of a base prompt that is hardly used; one alone, over and over, where it is all.
_MOST_PHRASES = 8


class Measure:
    """Tokens of single words, asked once a word: pieces of words do not cross spaces."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._known: dict[str, int] = {}

    def of(self, word: str) -> int:
        """Return how many tokens a word takes after a space."""
        if word not in self._known:
            # A tokenizer that drops what it does not know must not make prompts endless.
            self._known[word] = max(1, int(self._tokenizer.encode([word]).lengths[0]))
        return self._known[word]


def prompts_of(  # noqa: PLR0913, PLR0917 - what a set is made of
    recipe: Recipe,
    material: Material,
    count: int,
    tokens: int,
    seed: int,
    measure: Measure,
    spread: float = 0.0,
) -> list[str]:
    """Return the prompts of a set.

    Args:
        recipe: What the set is like.
        material: Where sentences come from.
        count: Prompts.
        tokens: Length of each; the last word that would pass it is left out.
        seed: The same seed gives the same prompts.
        measure: Of the tokenizer that counts.
        spread: Standard deviation of the logarithm of lengths, whose median is ``tokens`` then.
    """
    order = Draws(seed, recipe.name, "domains").shuffled(range(len(material.domains)))
    phrases = 1 + round((1 - recipe.repetition) * _MOST_PHRASES)
    base = _taken(material.free(order[0], Draws(seed, recipe.name, "base")), phrases)
    return [
        _cut(
            _words(recipe, material, order, base, Draws(seed, recipe.name, number)),
            _length(tokens, spread, Draws(seed, recipe.name, "length", number)),
            measure,
        )
        for number in range(count)
    ]


def _length(median: int, spread: float, draws: Draws) -> int:
    """Draw a length in tokens, lognormal as those of texts that people write are."""
    if not spread:
        return median
    # Between two of 2^53 steps, so that neither end is reached.
    normal = NormalDist().inv_cdf(draws.unit() + 2.0**-54)
    return max(1, round(median * math.exp(spread * normal)))


def domain_weights(concentration: float, count: int) -> list[float]:
    """Return (1 - d)^k for k from 0, by products: powers differ between machines.

    >>> domain_weights(0.5, 3)
    [1.0, 0.5, 0.25]
    """
    weights = [1.0]
    while len(weights) < count:
        weights.append(weights[-1] * (1 - concentration))
    return weights


def _words(
    recipe: Recipe, material: Material, order: list[int], base: list[str], draws: Draws
) -> Iterator[str]:
    """Return the words of one prompt, without end."""
    domain = order[draws.weighted(domain_weights(recipe.semantic, len(order)))]
    is_framed = draws.happens(recipe.structure)
    fresh = material.framed(domain, draws) if is_framed else material.free(domain, draws)
    # Two words of its own, so that no two prompts are one request to a prefix cache.
    yield from next(fresh).split()[-2:]
    place = 0
    while True:
        is_base = draws.happens(recipe.repetition)
        yield from (base[place % len(base)] if is_base else next(fresh)).split()
        place += 1


def _cut(words: Iterator[str], tokens: int, measure: Measure) -> str:
    """Return the words that fit; the first one always."""
    kept = [next(words)]
    used = measure.of(kept[0])
    for word in words:
        used += measure.of(word)
        if used > tokens:
            break
        kept.append(word)
    return " ".join(kept)


def _taken(sentences: Iterator[str], count: int) -> list[str]:
    return [next(sentences) for _ in range(count)]
