"""What a logged balancedness means: vLLM up to 0.27.1 took means and maxima over the wrong axis.

There the sums run over ranks of the mean and the maximum over *layers*: a rank that is hot in every
layer gives 1.00. From 0.28.0 on they run over layers of the mean and the maximum over ranks.
"""

from __future__ import annotations

import re
from typing import Literal

Definition = Literal["over_ranks", "over_layers", "unknown"]
_FIRST_RIGHT = (0, 28)
_RELEASE = re.compile(r"v?(\d{1,4})\.(\d{1,4})")


def definition_of(version: str | None) -> Definition:
    """Return which way a version reduces; ``over_layers`` says nothing about balance of ranks.

    No value of the line can be put right: the maxima over ranks are not in it.
    """
    found = _RELEASE.match(version or "")
    if found is None:
        return "unknown"
    release = int(found[1]), int(found[2])
    # Builds from a checkout call themselves 0.1.dev…: that tells nothing.
    if release < (0, 9):
        return "unknown"
    return "over_ranks" if release >= _FIRST_RIGHT else "over_layers"
