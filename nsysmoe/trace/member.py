"""One file of a run of several."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

_NUMBER = re.compile(r"(\d+)")

Rank = tuple[int | None, int]
"""Process (as nsys serialises it, machine and all) and CUDA ordinal of a GPU."""


@dataclass(frozen=True)
class Member:
    """One file, as far as its place among others goes; times in ns of the file's own clock.

    Attributes:
        path: The file.
        host: Name of the host; None where the export does not tell.
        gpus: UUIDs of the host's GPUs, sorted; they tell hosts of one name apart.
        utc_ns: What its times are short of UTC; None where unknown.
        ranks: The processes and devices that ran kernels.
        launches: Kernels.
        first_ns: Start of the first kernel.
        last_ns: End of the last one.
        missing: Why it cannot be used, where it holds no kernels.
        tables: Rows of the tables that nsysmoe reads, where asked for.
        other_tables: How many more tables there are.
        export: The row of view ``export_info``.
    """

    path: str
    host: str | None
    gpus: tuple[str, ...]
    utc_ns: int | None
    ranks: tuple[Rank, ...]
    launches: int
    first_ns: int
    last_ns: int
    missing: str | None = None
    tables: dict[str, int] = field(default_factory=dict)
    other_tables: int = 0
    export: dict[str, Any] = field(default_factory=dict)

    @property
    def machine(self) -> tuple[Any, ...]:
        """What tells its host from others: the name, in natural order, and the GPUs."""
        return (natural(self.host or ""), self.gpus)

    @property
    def window_ns(self) -> tuple[int, int] | None:
        """First start and last end in UTC; None where unknown."""
        if self.utc_ns is None:
            return None
        return (self.first_ns + self.utc_ns, self.last_ns + self.utc_ns)


def natural(text: str) -> tuple[Any, ...]:
    """Return a key under which node2 comes before node10."""
    return tuple(
        (1, int(part), "") if part.isdecimal() and part.isascii() else (0, 0, part)
        for part in _NUMBER.split(text)
    )
