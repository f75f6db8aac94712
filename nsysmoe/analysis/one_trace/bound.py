"""What bounds each phase: the experts, other kernels, transfer, or the host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from nsysmoe.analysis.reading.run import run_of_trace
from nsysmoe.errors import MissingDataError
from nsysmoe.trace import open_trace

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import polars as pl

    from nsysmoe.classes import ClassMap
    from nsysmoe.findings import Finding

By = Literal["phase", "rank"]
_KEYS: dict[By, tuple[str, ...]] = {
    "phase": ("phase",),
    "rank": ("phase", "global_pid", "process_id", "device_id"),
}
_NAMES = {
    "moe": "MoE",
    "other_compute": "other-compute",
    "transfer": "transfer",
    "host": "host",
    "sync": "sync",
    "latency": "latency",
    "unexplained": "unexplained",
}
_ADVICE = {
    "moe": "experts are what takes the time",
    "other_compute": "make attention and dense kernels faster",
    "transfer": "move fewer bytes, or over faster links",
    "host": "launch faster (CUDA graphs)",
    "sync": "let the host run ahead of the GPU",
    "latency": "launch fewer and larger kernels",
    "unexplained": "what it waits for is in no event of the trace",
}
_NOT_BALANCE = "balancing experts cannot shorten it; "
# Phases that take less of the time are not worth a clause.
_NOTABLE = 0.1
# As metrics.phases calls it, which imports polars.
UNATTRIBUTED = "unattributed"
_SPOKEN = {"dummy": "passes without requests", UNATTRIBUTED: "what belongs to no step"}


@dataclass(frozen=True)
class Bound:
    """Where the time of each phase, or of each rank in it, went.

    Attributes:
        source: The file.
        by: What one row is.
        rows: ``phase`` (and ``process``, ``device``), ``window_ns`` (over all its GPUs),
            ``bound``, ``shares`` by bound (0 to 1), ``causes`` in ns, ``balance_ratio``.
        sentence: What it comes to.
        findings: What was odd about the file.
    """

    source: str
    by: By
    rows: tuple[dict[str, Any], ...]
    sentence: str
    findings: tuple[Finding, ...]


def bound(
    path: str | Path,
    by: By = "phase",
    *,
    class_map: ClassMap | None = None,
    nsys: str | None = None,
) -> Bound:
    """Say what bounds each phase of a trace.

    Raises:
        MissingDataError: Kernels took no time.
        NsysmoeError: The input cannot be used.
    """
    with open_trace(path, class_map=class_map, nsys=nsys) as trace:
        run = run_of_trace(trace, with_schedule=True)
    causes = run.time_causes
    assert causes is not None  # noqa: S101 - asked for with its schedule
    rows = bound_rows(causes, by)
    if not rows:
        raise MissingDataError(f"{trace.path} has no time to split: its kernels took none")
    phases = bound_rows(causes, "phase")
    sentence = f"{bound_text([phases])}."
    return Bound(str(trace.path), by, tuple(rows), sentence, tuple(run.findings))


def bound_rows(causes: pl.DataFrame, by: By) -> list[dict[str, Any]]:
    """Return what bounds each phase, or each rank in it.

    Args:
        causes: What ``metrics.bounds.time_causes`` returned.
        by: What one row is.
    """
    from nsysmoe.metrics.kernel_time.bounds import bounds  # noqa: PLC0415 - polars
    from nsysmoe.metrics.kernel_time.causes import BOUNDS, TIME_CAUSES  # noqa: PLC0415

    keys = _KEYS[by]
    found = bounds(causes, keys).iter_rows(named=True)
    return [
        {
            "phase": row["phase"],
            **({} if by == "phase" else {"process": row["process_id"], "device": row["device_id"]}),
            "window_ns": row["window_ns"],
            "bound": row["bound"],
            "shares": {name: row[name] for name in BOUNDS},
            "causes": {name: row[f"{name}_ns"] for name in TIME_CAUSES},
            "balance_ratio": row["balance_ratio"],
        }
        for row in found
    ]


def bound_text(arms: Sequence[Sequence[dict[str, Any]]], labels: Sequence[str] = ()) -> str:
    """Say what bounds the phases that take most of the time, of one arm or of two.

    Args:
        arms: What ``bound_rows`` returned by phase, for each arm.
        labels: How to call the arms, where there are two.
    """
    whole = sum(row["window_ns"] for row in arms[0])
    notable = [row for row in arms[0] if row["window_ns"] >= _NOTABLE * whole]
    clauses = []
    for name in dict.fromkeys(row["bound"] for row in notable):
        rows = [row for row in notable if row["bound"] == name]
        shares = [
            _share(row, whole, arms[1:], labels, is_first=not number)
            for number, row in enumerate(rows)
        ]
        has_moe = any(row["causes"]["moe"] for row in arms[0])
        clauses.append(f"{', '.join(shares)}: {_advice(name, rows, has_moe=has_moe)}")
    text = "; ".join(clauses)
    return text[:1].upper() + text[1:]


def spoken_phase(phase: str) -> str:
    """Return how sentences call a phase.

    >>> spoken_phase("decode"), spoken_phase("dummy")
    ('decode', 'passes without requests')
    """
    return _SPOKEN.get(phase, phase)


def _share(
    row: dict[str, Any],
    whole: int,
    others: Sequence[Sequence[dict[str, Any]]],
    labels: Sequence[str],
    *,
    is_first: bool,
) -> str:
    """Return such as "decode is 87% host-bound (77% in ON; 94% of the time)"."""
    name, phase = row["bound"], row["phase"]
    there = [other for rows in others for other in rows if other["phase"] == phase]
    beside = f"{there[0]['shares'][name]:.0%} in {labels[1]}" if there else ""
    is_all = phase == UNATTRIBUTED and row["window_ns"] == whole
    what = "the trace" if is_all else spoken_phase(phase)
    verb, kind = ("is ", f" {_NAMES[name]}-bound") if is_first else ("", "")
    of_time = "" if row["window_ns"] == whole else f"{row['window_ns'] / whole:.0%} of the time"
    aside = "; ".join(part for part in (beside, of_time) if part)
    return f"{what} {verb}{row['shares'][name]:.0%}{kind}{f' ({aside})' if aside else ''}"


def _advice(name: str, rows: Sequence[dict[str, Any]], *, has_moe: bool) -> str:
    if name != "moe":
        return f"{_NOT_BALANCE if has_moe else ''}{_ADVICE[name]}"
    unequal = " and ".join(f"{row['balance_ratio']:.1%}" for row in rows)
    return f"{_ADVICE[name]}, {unequal} of it in waiting for unequal ranks"
