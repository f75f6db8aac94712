"""What a run of ``nsysmoe capture`` served: times and throughput, from the run.json beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nsysmoe.bounded_files import read_json_object
from nsysmoe.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

# What a comparison shows, and whether more of it is better.
SERVED = {
    "ttft_p50_s": False,
    "ttft_p99_s": False,
    "tpot_p50_s": False,
    "tpot_p99_s": False,
    "output_tok_per_s": True,
}

# Neither seconds nor tokens a second are more.
_LARGEST = 1e12


@dataclass(frozen=True)
class Served:
    """One run: the measured round, and the same prompts without the profiler.

    Attributes:
        profiled: By the keys of ``SERVED``; None where the run does not tell.
        unprofiled: The same of the control.
    """

    profiled: dict[str, float | None]
    unprofiled: dict[str, float | None]


def read_served(trace: Path) -> Served | None:
    """Return what a trace's run served; None where no capture of ours wrote it down.

    Raises:
        InputError: The record is damaged.
    """
    path = trace.parent / "run.json"
    if not path.is_file():
        return None
    record = read_json_object(path)
    if "capture" not in record:
        return None
    rounds = record.get("runs")
    if not isinstance(rounds, list) or not rounds:
        raise InputError(f"{path} has no list `runs`; capture the run again")
    summaries = {one.get("round"): one.get("summary") for one in rounds if isinstance(one, dict)}
    return Served(_values(summaries.get("profiled")), _values(summaries.get("control")))


def _values(summary: Any) -> dict[str, float | None]:
    known = summary if isinstance(summary, dict) else {}
    return {key: _number(known.get(key)) for key in SERVED}


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and 0 < value <= _LARGEST else None
