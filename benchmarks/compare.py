"""`nsysmoe compare` beside the sqlite3 program's plain group-by on the same two files."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from benchmarks.generate import generate
from benchmarks.measure import side_by_side

DATA = Path(__file__).parent / "data"
_STATISTICS = (
    'count(*), sum(k."end" - k.start), avg(k."end" - k.start), min(k."end" - k.start), '
    'max(k."end" - k.start)'
)
# A kernel summary needs the names; by id alone it is less than anybody could use.
BY_NAME = (
    f"SELECT s.value, {_STATISTICS} FROM CUPTI_ACTIVITY_KIND_KERNEL AS k "
    "JOIN StringIds AS s ON s.id = k.demangledName GROUP BY s.value"
)
BY_ID = (
    f"SELECT k.demangledName, {_STATISTICS} FROM CUPTI_ACTIVITY_KIND_KERNEL AS k "
    "GROUP BY k.demangledName"
)


def traces(kernels: int, folder: Path = DATA) -> list[str]:
    """Return the two traces of a size in a folder, writing them where they are not there yet."""
    paths = [folder / f"{arm}-{kernels}.sqlite" for arm in ("off", "on")]
    for seed, path in enumerate(paths, 1):
        if not path.exists():
            generate(path, kernels, seed)
    return [str(path) for path in paths]


def sqlite3_program() -> str:
    """Return where the sqlite3 program is, beside which all is measured."""
    if (found := shutil.which("sqlite3")) is None:
        raise SystemExit("needs the sqlite3 program (Debian: sqlite3)")
    return found


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kernels", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    sqlite3 = sqlite3_program()
    files = traces(arguments.kernels)
    nsysmoe, cold = [sys.executable, "-m", "nsysmoe"], ["--no-cache"]
    side_by_side(
        {
            "nsysmoe compare, both": [[*nsysmoe, "compare", *cold, *files]],
            # The first round is warm-up: it fills the cache.
            "nsysmoe compare, both, again": [[*nsysmoe, "compare", *files]],
            "nsysmoe compare --quick, both": [[*nsysmoe, "compare", "--quick", *cold, *files]],
            "nsysmoe kernels, one after the other": [
                [*nsysmoe, "kernels", *cold, f] for f in files
            ],
            "sqlite3 group by name, at once": [[sqlite3, f, BY_NAME] for f in files],
            "sqlite3 group by id, one after the other": [[sqlite3, f, BY_ID] for f in files],
            "sqlite3 group by name, one after the other": [[sqlite3, f, BY_NAME] for f in files],
        },
        arguments.rounds,
    )


if __name__ == "__main__":
    main()
