"""A confidence interval of a relative change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Interval:
    """Where a change lies, candidate / baseline - 1 (0.01 is 1 %), at ``level``.

    ``over`` says what was resampled: runs, or the steps of one run each; ``baseline_n`` and
    ``candidate_n`` how many of them each arm has.
    """

    low: float
    high: float
    level: float
    over: Literal["runs", "steps"]
    baseline_n: int
    candidate_n: int

    def excludes_zero(self) -> bool:
        """Tell whether "no change" lies outside."""
        return self.low > 0 or self.high < 0
