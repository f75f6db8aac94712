"""What a day of an engine's log costs ``nsysmoe watch --once``: CPU and memory."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.watch import texts

_BLOCK_S = 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=int, default=24)
    parser.add_argument("--steps-a-second", type=int, default=40)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "engine.log"
        _write(path, options.hours * 3600, options.steps_a_second)
        sys.stdout.write(f"log of {options.hours} h: {path.stat().st_size / 1e6:,.0f} MB\n")
        started = time.perf_counter()
        child = subprocess.Popen(
            [sys.executable, "-m", "nsysmoe", "watch", "--log", str(path), "--once"],
            stdout=subprocess.DEVNULL,
        )
        _, _, used = os.wait4(child.pid, 0)
        sys.stdout.write(
            f"{time.perf_counter() - started:.1f} s, {used.ru_utime + used.ru_stime:.1f} s of CPU, "
            f"{used.ru_maxrss / 1e3:,.0f} MB at most\n"
        )


def _write(path: Path, seconds: int, steps: int) -> None:
    """Write EPLB's line of every step, the queue every ten seconds, and lines of requests."""
    request = "INFO 11-21 23:05:40 [logger.py:42] Received request cmpl-1: prompt: 'x', params: y\n"
    block = "".join(
        "".join(
            texts.eplb_line(number, 3000 - number % 3000, value=0.5 + number % 500 / 1000)
            for number in range(second * steps, (second + 1) * steps)
        )
        + request * (steps // 4)
        + (texts.load_line(0, second, 0) if second % 10 == 0 else "")
        for second in range(_BLOCK_S)
    )
    with path.open("w") as file:
        for _ in range(seconds // _BLOCK_S):
            file.write(block)


if __name__ == "__main__":
    main()
