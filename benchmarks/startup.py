"""`nsysmoe --help` beside a Python that does nothing."""

from __future__ import annotations

import sys

from benchmarks.measure import side_by_side

if __name__ == "__main__":
    side_by_side(
        {
            "nsysmoe --help": [[sys.executable, "-m", "nsysmoe", "--help"]],
            "python -c pass": [[sys.executable, "-c", "pass"]],
        },
        rounds=9,
    )
