"""How the program ends: the numbers that scripts rely on (docs/command-line.md)."""

from __future__ import annotations

REFUSED = 1
USAGE = 2
GATE = 3
DEFECT = 4
HUNG_UP = 129
INTERRUPTED = 130
TERMINATED = 143
