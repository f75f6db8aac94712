"""What a benchmark client wrote about the requests of a run: latencies, round by round."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nsysmoe.bounded_files import read_json
from nsysmoe.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

# Thirty years.
_LONGEST_S = 1e9


@dataclass(frozen=True)
class Round:
    """Latencies of one round of requests, s; a request of one token has no TPOT.

    Attributes:
        tpot_s: Time per output token after the first, one value a request.
        ttft_s: Time to the first token, one value a request.
    """

    tpot_s: tuple[float, ...]
    ttft_s: tuple[float, ...]


def read_rounds(path: Path) -> tuple[Round, ...]:
    """Read the rounds of a run.json, in the order in which they ran.

    Args:
        path: An object with ``runs``, a list whose entries hold ``requests``, each with
            ``tpot_s`` and ``ttft_s`` in s.

    Raises:
        InputError: The file cannot be read, or is none of these.
    """
    content = read_json(path)
    runs = content.get("runs") if isinstance(content, dict) else None
    if not isinstance(runs, list) or not runs:
        raise InputError(f"{path} is no run.json: it has no list of runs")
    return tuple(_round(path, run) for run in runs)


def _round(path: Path, run: Any) -> Round:
    requests = run.get("requests") if isinstance(run, dict) else None
    if not isinstance(requests, list) or not all(isinstance(one, dict) for one in requests):
        raise InputError(f"{path} holds a run without a list of requests")
    return Round(_seconds(path, requests, "tpot_s"), _seconds(path, requests, "ttft_s"))


def _seconds(path: Path, requests: list[dict[str, Any]], key: str) -> tuple[float, ...]:
    values = [one[key] for one in requests if one.get(key) is not None]
    for value in values:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not 0 <= value <= _LONGEST_S:
            raise InputError(f"{path} holds a {key} that is no time in seconds: {repr(value)[:40]}")
    return tuple(float(value) for value in values)
