"""What views across ranks cost as the number of ranks grows; CPU seconds.

    python -m benchmarks.rank_views                   # 32, 128, 512 and 1,024 ranks

All ranks lie in one file, a communicator of all, so that nothing but the views is measured: they
are the ones that stand on the parts of many files.
"""

from __future__ import annotations

import argparse
import resource
import sqlite3
import tempfile
import time
from contextlib import closing
from pathlib import Path

import nsysmoe
from benchmarks.ranks import NAMES, kernel_rows, tables
from fixtures.builder import global_pid
from nsysmoe.resources import using

_KERNELS = 1000
_VIEWS = ("clocks", "matched_collectives", "collective_steps", "wait_ledger", "moe_cells")


def file_of_ranks(path: Path, ranks: int) -> Path:
    """Write one file of many ranks, whose clock is one."""
    with closing(sqlite3.connect(path)) as database:
        tables(database)
        database.executemany("INSERT INTO StringIds VALUES (?, ?)", enumerate(NAMES))
        for rank in range(ranks):
            # Every fifth has the first one's clock.
            rows = kernel_rows(rank * 5, _KERNELS, global_pid(1000 + rank))
            database.executemany(
                f"INSERT INTO CUPTI_ACTIVITY_KIND_KERNEL VALUES ({', '.join('?' * 28)})", rows
            )
        database.commit()
    return path


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ranks", type=int, nargs="*", default=[32, 128, 512, 1024])
    counts = parser.parse_args().ranks
    print(f"{'ranks':>6} {'peak MiB':>8} " + " ".join(f"{view:>20}" for view in _VIEWS))
    for ranks in counts:
        with tempfile.TemporaryDirectory() as folder, using(has_cache=False):
            path = file_of_ranks(Path(folder) / "ranks.sqlite", ranks)
            with nsysmoe.open(path) as trace:
                trace.frame("kernel_classes")
                took = []
                for view in _VIEWS:
                    begin = time.process_time()
                    trace.frame(view)
                    took.append(time.process_time() - begin)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        print(f"{ranks:6} {peak:8} " + " ".join(f"{each:20.2f}" for each in took), flush=True)


if __name__ == "__main__":
    main()
