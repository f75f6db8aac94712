"""Whole processes timed in turn, so that a drift of the machine hits all of them."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Run:
    """Some processes: wall and CPU time in s, peak memory of the largest of them in MiB."""

    seconds: float
    cpu_seconds: float
    peak_mib: float


def run(commands: Sequence[Sequence[str]], *, at_once: bool = False) -> Run:
    """Run commands, one after the other or at once, and return what they took together."""
    start = time.perf_counter()
    with ThreadPoolExecutor(len(commands) if at_once else 1) as threads:
        usages = list(threads.map(_usage_of, commands))
    seconds = time.perf_counter() - start
    cpu = sum(usage.ru_utime + usage.ru_stime for usage in usages)
    return Run(seconds, cpu, max(usage.ru_maxrss for usage in usages) / 1024)


def _usage_of(command: Sequence[str]) -> resource.struct_rusage:
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        error = process.stderr.read() if process.stderr else b""
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed: {error.decode(errors='replace')}")
    assert isinstance(usage, resource.struct_rusage)
    return usage


def side_by_side(candidates: dict[str, Sequence[Sequence[str]]], rounds: int) -> None:
    """Print medians, and ratios to the last candidate pair by pair; the first round is warm-up.

    Ratios are of CPU time too: wall time says little where others use the machine. The commands
    of a candidate run one after the other; at once where its name ends so.
    """
    results: dict[str, list[Run]] = {name: [] for name in candidates}
    for number in range(rounds + 1):
        for name, commands in candidates.items():
            measured = run(commands, at_once=name.endswith("at once"))
            if number:
                results[name].append(measured)
    last = list(results)[-1]
    print(
        f"{'':44} {'median s':>9} {'min-max s':>13} {'CPU s':>7} {'peak MiB':>9} {'ratio':>6} "
        f"{'of CPU':>6}"
    )
    for name, runs in results.items():
        seconds = [r.seconds for r in runs]
        pairs = list(zip(runs, results[last], strict=True))
        ratio = statistics.median(a.seconds / b.seconds for a, b in pairs)
        of_cpu = statistics.median(a.cpu_seconds / b.cpu_seconds for a, b in pairs)
        print(
            f"{name:44} {statistics.median(seconds):9.2f} "
            f"{min(seconds):6.2f}-{max(seconds):.2f} "
            f"{statistics.median(r.cpu_seconds for r in runs):7.2f} "
            f"{max(r.peak_mib for r in runs):9.0f} {ratio:6.2f} {of_cpu:6.2f}"
        )
