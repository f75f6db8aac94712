"""Lines of vLLM's log that tell of EPLB, the queue and the version; all others are passed over."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

# What a line that matters holds: most lines are dismissed by it.
_MARKS = (b"EPLB", b"Rearrang", b"Running:", b"version ", b"engine (v")
# A longer line is no line of a log.
LONGEST = 1 << 16
# Up to 0.11 the line tells neither step nor model nor countdown.
_EPLB = re.compile(
    r"EPLB step: (?:(?P<step>-?\d{1,18}) for model (?P<model>.{1,512}?): )?"
    r"avg_tokens=(?P<avg>[\d.]{1,24}), max_tokens=(?P<max>\d{1,18}), "
    r"balancedness=(?P<balancedness>[\d.]{1,12})"
    r"(?:, steps until the next rearrangement: (?P<countdown>-?\d{1,18}))?"
)
_REARRANGED = re.compile(r"Rearranged experts(?P<what>.{0,80}?) in (?P<seconds>[\d.]{1,12}) s")
_REARRANGING = re.compile(r"Rearranging experts(?P<what>.{0,80})")
_SKIPPED = "Skip rearrange:"
_LOAD = re.compile(
    r"Running: (?P<running>\d{1,9}) reqs, Waiting: (?P<waiting>\d{1,9}) reqs"
    r"(?:.{0,200}?KV cache usage: (?P<cache>[\d.]{1,8})%)?"
)
_ENGINE = re.compile(r"Engine (\d{1,6}):")
_VERSION = re.compile(r"(?:API server version |LLM engine \(v)v?(?P<version>\d+\.\d+[\w.+]{0,40})")
_WHEN = re.compile(r"(\d{2})-(\d{2}) (\d{2}):(\d{2}):(\d{2})")
_DAYS = (0, 31, 60, 91, 121, 152, 182, 213, 244, 274, 305, 335)


@dataclass(frozen=True)
class EplbStep:
    """EPLB's own count: ``balancedness`` as logged, its definition depends on the version.

    ``step`` and ``countdown`` are None, and ``model`` is empty, where the version tells none.
    """

    model: str
    step: int | None
    avg_tokens: float
    max_tokens: int
    balancedness: float
    countdown: int | None


@dataclass(frozen=True)
class Rearrangement:
    """Experts move, not those of a dummy run.

    ``begun``, ``ended`` with ``seconds`` (asynchronous ones end without a line), or ``skipped``:
    it would gain too little, and an end of it is logged all the same.
    """

    what: Literal["begun", "ended", "skipped"]
    seconds: float | None = None


@dataclass(frozen=True)
class Load:
    """One engine's queue; ``cache_ratio`` is None where the line does not tell."""

    engine: int
    running: int
    waiting: int
    cache_ratio: float | None


@dataclass(frozen=True)
class Version:
    """vLLM's version."""

    version: str


Event = EplbStep | Rearrangement | Load | Version


def parse(line: bytes) -> Event | None:
    """Return what a line tells; None for all others."""
    if not any(mark in line for mark in _MARKS):
        return None
    text = line.decode("utf-8", errors="replace")
    if "EPLB step:" in text:
        return _eplb(text)
    if _SKIPPED in text:
        return Rearrangement("skipped")
    if "Rearrang" in text:
        return _rearrangement(text)
    if "Running:" in text:
        return _load(text)
    found = _VERSION.search(text)
    return Version(found["version"]) if found else None


def when(line: bytes) -> float | None:
    """Return the time of a line in seconds since the year began; vLLM's log tells no year."""
    found = _WHEN.search(line[:200].decode("utf-8", errors="replace"))
    if found is None:
        return None
    month, day, hour, minute, second = map(int, found.groups())
    if not 1 <= month <= 12:
        return None
    return (_DAYS[month - 1] + day - 1) * 86400.0 + hour * 3600 + minute * 60 + second


def _eplb(text: str) -> EplbStep | None:
    found = _EPLB.search(text)
    if found is None:
        return None
    step, countdown = found["step"], found["countdown"]
    try:
        return EplbStep(
            found["model"] or "",
            None if step is None else int(step),
            float(found["avg"]),
            int(found["max"]),
            float(found["balancedness"]),
            None if countdown is None else int(countdown),
        )
    except ValueError:
        return None


def _rearrangement(text: str) -> Rearrangement | None:
    if ended := _REARRANGED.search(text):
        if "profile" in ended["what"]:
            return None
        try:
            return Rearrangement("ended", float(ended["seconds"]))
        except ValueError:
            return None
    begun = _REARRANGING.search(text)
    if begun is None or "profile" in begun["what"]:
        return None
    return Rearrangement("begun")


def _load(text: str) -> Load | None:
    found = _LOAD.search(text)
    if found is None:
        return None
    engine = _ENGINE.search(text)
    try:
        cache = None if found["cache"] is None else float(found["cache"]) / 100
    except ValueError:
        cache = None
    number = int(engine[1]) if engine else 0
    return Load(number, int(found["running"]), int(found["waiting"]), cache)
