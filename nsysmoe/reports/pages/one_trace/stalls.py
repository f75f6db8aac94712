"""What stopped a run: stalls, largest first, and their sums by kind."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from nsysmoe.reports import numbers
from nsysmoe.reports.document import Document, Table
from nsysmoe.reports.tables import left, right, table

if TYPE_CHECKING:
    from nsysmoe.analysis.one_trace.stalls import By, Stalls
    from nsysmoe.reports.tables import Values

_NAMES = {
    "slow_step": ("slow step", "slow steps"),
    "code_load": ("load of compiled code", "loads of compiled code"),
    "rearrangement": ("rearrangement", "rearrangements"),
    "silence": ("silence of the host", "silences of the host"),
}
_BECAUSE = {
    "code_load": "compiled code was loaded",
    "rearrangement": "EPLB moved experts",
    "silence": "the host fell silent",
    None: "nothing in the trace says why",
}
_MOST_ROWS = 20
_LOST = (
    "Lost: of a load and a silence, the time in which the GPU was idle meanwhile; of a "
    "rearrangement, all of it; of a slow step, what it took more than the median of other "
    "steps with as much to do (of fewer than four: what the others took of it). Share is of "
    "wall time."
)
_ONCE = (
    "Sums by kind hold no moment twice: not that of two ranks, and of a slow step only what no "
    "other stall covers. A load takes the time without a call before it, in which code was "
    "compiled or read. Hidden: the GPU had work for 90 % of it or more."
)
_BLIND = "No CUDA calls of the threads that launch were recorded: loads and silences are unknown."


def stalls_page(stalls: Stalls, by: By = "stall") -> Document:
    """Return the stalls and their sums; the sums alone ``by`` kind."""
    sums = _sums(stalls)
    data = {
        "source": stalls.source,
        "wall_ns": stalls.wall_ns,
        "lost_ns": stalls.lost_ns,
        "steps": stalls.steps,
        "has_calls": stalls.has_calls,
        "kinds": stalls.kinds,
        "stalls": list(stalls.rows),
    }
    kinds = tuple({"kind": kind, **row} for kind, row in stalls.kinds.items())
    tables = (_table(stalls), sums) if by == "stall" and stalls.rows else (sums,)
    return Document(
        title=f"Stalls of {stalls.source}",
        tables=tables,
        data=data,
        records=stalls.rows if by == "stall" else kinds,
        findings=stalls.findings,
        notes=(_LOST, _ONCE) if stalls.has_calls else (_LOST, _ONCE, _BLIND),
        lead=_lead(stalls),
    )


def _lead(stalls: Stalls) -> tuple[str, ...]:
    if not stalls:
        steps = (
            f"none of {numbers.count(stalls.steps)} steps took 3 times what its phase usually does"
        )
        looked = [
            steps if stalls.steps else "steps are not known",
            "no experts moved",
            "no compiled code was loaded and the host never left a GPU idle for unusually long"
            if stalls.has_calls
            else "loads and silences cannot be seen without the CUDA calls of launching threads",
        ]
        return (f"No stall: {', '.join(looked)}.",)
    counted = ", ".join(
        _counted(kind, row["stalls"], row["hidden"])
        for kind, row in stalls.kinds.items()
        if row["stalls"]
    )
    share = numbers.share(stalls.lost_ns / stalls.wall_ns if stalls.wall_ns else None)
    whole = (
        f"Stalls took {numbers.milliseconds(stalls.lost_ns)} ms of "
        f"{numbers.milliseconds(stalls.wall_ns)} ms wall time ({share}): {counted}."
    )
    return (whole, f"The largest: {_largest(stalls.rows[0])}.")


def _counted(kind: str, stalls: int, hidden: int) -> str:
    named = f"{numbers.count(stalls)} {_NAMES[kind][stalls != 1]}"
    return f"{named} ({hidden} of them hidden behind GPU work)" if hidden else named


def _largest(row: dict[str, Any]) -> str:
    where = f"step {row['step']} ({row['phase']})" if row["step"] is not None else "no known step"
    took = f"{numbers.milliseconds(row['dur_ns'])} ms"
    if row["kind"] == "slow_step":
        usual = (
            f" against {numbers.milliseconds(row['usual_ns'])} usually" if row["usual_ns"] else ""
        )
        ended = f", the longest time ending in {row['call']}" if row["call"] else ""
        return f"{where} took {took}{usual}: {_BECAUSE[row['cause']]}{ended}"
    ended = f", ended by {row['call']}" if row["call"] else ""
    return f"{_NAMES[row['kind']][0]} in {where}, {took}{ended}"


def _table(stalls: Stalls) -> Table:
    shown = stalls.rows[:_MOST_ROWS]
    more = len(stalls.rows) - len(shown)
    caption = f"Stalls of {stalls.source}, the largest loss first" + (
        f" (and {more} more in CSV and JSON)" if more else ""
    )
    columns = (
        left("Stall", _kind),
        right("Step", "step", numbers.as_is),
        left("Phase", lambda row: row["phase"] or numbers.UNKNOWN),
        right("Process", partial(_where, "process_id"), str),
        right("Device", partial(_where, "device_id"), str),
        right("GPUs", "devices", numbers.count),
        right("Start (ms)", "start_ns", numbers.milliseconds),
        right("Duration (ms)", "dur_ns", numbers.milliseconds),
        right("Usual (ms)", "usual_ns", numbers.milliseconds),
        right("Lost (ms)", "lost_ns", numbers.milliseconds),
        right("Share", "share", numbers.share),
        left("Ended by", lambda row: row["call"] or ""),
        left("Cause", lambda row: row["cause"] or ""),
    )
    return table(caption, shown, columns)


def _where(key: str, row: Values) -> str:
    """Return a process or device; a rearrangement stops all of them."""
    return "all" if row["kind"] == "rearrangement" else numbers.as_is(row[key])


def _kind(row: Values) -> str:
    if row["in_step"] is None:
        return str(row["kind"])
    return f"{row['kind']} ({'within' if row['in_step'] else 'between'} steps)"


def _sums(stalls: Stalls) -> Table:
    parts = stalls.kinds.values()
    whole = {
        "kind": "all",
        "stalls": sum(row["stalls"] for row in parts),
        "hidden": sum(row["hidden"] for row in parts),
        "lost_ns": stalls.lost_ns,
        "share": stalls.lost_ns / stalls.wall_ns if stalls.wall_ns else None,
    }
    rows = [*({"kind": kind, **row} for kind, row in stalls.kinds.items()), whole]
    columns = (
        left("Kind", "kind"),
        right("Stalls", "stalls", numbers.count),
        right("Hidden", "hidden", numbers.count),
        right("Lost (ms)", "lost_ns", numbers.milliseconds),
        right("Share of wall time", "share", numbers.share),
    )
    return table("Wall time by kind, no moment twice", rows, columns)
