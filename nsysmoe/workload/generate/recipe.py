"""Which sets there are: three families with a dial each, and random mixtures of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nsysmoe.workload.generate.draws import Draws

if TYPE_CHECKING:
    from collections.abc import Sequence

REPETITION = "repetition"
SEMANTIC = "semantic"
STRUCTURE = "structure"
RANDOM = "random"
FAMILIES = (REPETITION, SEMANTIC, STRUCTURE)


@dataclass(frozen=True)
class Recipe:
    """What one set is like; each dial from 0 (as various as the material) to 1 (concentrated).

    Attributes:
        name: Of the set and its file.
        family: One of the three, or ``random``.
        repetition: Probability that a sentence is of the set's base prompt, which has fewer
            sentences the higher it is. At 1 prompts are one sentence over and over, and differ in
            their first two words alone.
        semantic: Concentration d of domains: the k-th, from 0, has weight (1 - d)^k. At 0 all are
            alike, at 1 there is one.
        structure: Probability that a prompt is in the one frame, rather than in free form.
    """

    name: str
    family: str
    repetition: float = 0.0
    semantic: float = 0.0
    structure: float = 0.0


def family_recipe(family: str, dial: float) -> Recipe:
    """Return the set of a family at a dial; the other dials are at 0."""
    return Recipe(f"{family}-{round(dial * 1000):04d}", family, **{family: dial})


def random_recipe(number: int, seed: int, has_domains: bool) -> Recipe:
    """Return a set with all dials drawn; the same for the same number and seed."""
    draws = Draws(seed, RANDOM, number)
    # Two decimals, so that a manifest can be read.
    dials = {family: draws.below(101) / 100 for family in FAMILIES}
    if not has_domains:
        dials[SEMANTIC] = 0.0
    return Recipe(f"{RANDOM}-{number:03d}", RANDOM, **dials)


def recipes(
    families: Sequence[str], dials: Sequence[float], mixtures: int, seed: int, has_domains: bool
) -> list[Recipe]:
    """Return every family at every dial, and so many random mixtures."""
    found = [family_recipe(family, dial) for family in families for dial in dials]
    return found + [random_recipe(number, seed, has_domains) for number in range(1, mixtures + 1)]
