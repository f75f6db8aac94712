"""What stopped a run: slow steps, loads of code, rearrangements, silences of the host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from nsysmoe.metrics.kernel_time.phases import UNATTRIBUTED
from nsysmoe.metrics.kernel_time.spans import Spans
from nsysmoe.metrics.kernel_time.steps import with_typical

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    Device = tuple[int, int]

# In the order in which a moment is counted: of two that share it, the first one has it.
EVENTS = ("code_load", "rearrangement", "silence")
KINDS = ("slow_step", *EVENTS)
SLOW_RATIO = 3.0
SHORTEST_SILENCE_NS = 10_000_000
_FEWEST_STEPS = 4
# Below this part of a slow step's excess an event is not what made it slow.
_LEAST_CAUSE = 0.1
_HIDDEN_RATIO = 0.1
_SCHEMA: dict[str, Any] = {
    "kind": pl.String,
    "step": pl.Int64,
    "phase": pl.String,
    "global_pid": pl.Int64,
    "process_id": pl.Int64,
    "device_id": pl.Int64,
    "devices": pl.Int64,
    "start_ns": pl.Int64,
    "end_ns": pl.Int64,
    "dur_ns": pl.Int64,
    "usual_ns": pl.Float64,
    "lost_ns": pl.Int64,
    "call": pl.String,
    "cause": pl.String,
    "in_step": pl.Boolean,
}


def find_stalls(
    gaps: pl.DataFrame,
    idle: pl.DataFrame,
    device_steps: pl.DataFrame,
    rearrangements: pl.DataFrame,
    ranges: pl.DataFrame,
) -> pl.DataFrame:
    """Name every stall of a run.

    Args:
        gaps: View ``host_gaps``.
        idle: View ``idle_gaps``; ``global_pid``, ``device_id``, ``start_ns``, ``end_ns``.
        device_steps: View ``device_steps``, with what ``steps.with_work`` adds.
        rearrangements: View ``rearrangements``.
        ranges: View ``steps``; no rows where the trace has no ranges of vLLM's.

    Returns:
        One row a stall, the largest loss first: ``kind`` (one of ``KINDS``), ``step``, ``phase``,
        ``global_pid``, ``process_id``, ``device_id`` (null for a rearrangement, which is of all),
        ``devices`` (that share it), ``start_ns``, ``end_ns``, ``dur_ns``, ``usual_ns`` (what a
        step, or the longest silence of a step, usually takes; null where unknown), ``lost_ns``
        (a slow step: more than usual, or what events took where that is unknown; a load and a
        silence: the time in which its GPU was idle; a rearrangement: its duration), ``call``
        (that ended it),
        ``cause`` (of a slow step: a kind of ``EVENTS``), ``in_step`` (of a silence: within one
        range of vLLM's, null without ranges).
    """
    idle_of = _idle_by_device(idle)
    placed = _placed(_with_idle(gaps, idle_of), device_steps)
    rows = [*_code_loads(placed), *_silences(placed, device_steps, ranges)]
    rows += _rearrangements(rearrangements, device_steps)
    events = _frame(rows)
    slow = _slow_steps(device_steps, idle_of, events)
    return _frame([*rows, *slow]).sort(
        "lost_ns", "start_ns", "kind", descending=[True, False, False]
    )


def distorting_events(
    gaps: pl.DataFrame, idle: pl.DataFrame, device_steps: pl.DataFrame
) -> dict[str, pl.DataFrame]:
    """Return what stretches steps beside loads: first uses of functions alone, and silences.

    Args:
        gaps: View ``host_gaps``.
        idle: View ``idle_gaps``, or of it ``silent_gaps``: the others count in no gap.
        device_steps: View ``device_steps``.

    Returns:
        Cause (``code_load``, ``silence``) to ``start_ns``, ``end_ns`` of each event; of a silence
        while the GPU was idle.
    """
    times = {"start_ns": pl.Int64, "end_ns": pl.Int64}
    first_uses = gaps.filter((pl.col("kind") == "code_load") & (pl.col("loads") == 0))
    idle_of = _idle_by_device(idle)
    placed = _placed(_with_idle(gaps, idle_of), device_steps)
    quiet = [_idle_in(row, idle_of) for row in _silences(placed, device_steps, None)]
    edges = [(int(spans.starts[0]), int(spans.ends[-1])) for spans in quiet]
    return {
        "code_load": first_uses.select(*times),
        "silence": pl.DataFrame(edges, schema=times, orient="row"),
    }


def stall_sums(stalls: pl.DataFrame, idle: pl.DataFrame) -> dict[str, dict[str, int]]:
    """Add up the wall time that stalls took, no moment twice.

    A moment counts when on any GPU a load or a silence leaves it idle, or weights move; of
    several kinds the first of ``EVENTS`` has it. A slow step adds what of its loss none of these
    covers.

    Args:
        stalls: What ``find_stalls`` returned.
        idle: View ``idle_gaps``.

    Returns:
        Kind to ``stalls`` (how many), ``hidden`` (how many lost less than a tenth of their
        duration: the GPU had work) and ``lost_ns`` (wall time).
    """
    idle_of = _idle_by_device(idle)
    covered, sums = Spans.of([], []), {}
    for kind in EVENTS:
        here = stalls.filter(pl.col("kind") == kind)
        more = Spans.union([covered, *(_lost(row, idle_of) for row in here.iter_rows(named=True))])
        sums[kind] = _sum(here, more.length - covered.length)
        covered = more
    slow = stalls.filter(pl.col("kind") == "slow_step")
    rest = [
        max(row["lost_ns"] - covered.clipped(row["start_ns"], row["end_ns"]).length, 0)
        for row in slow.iter_rows(named=True)
    ]
    return {"slow_step": _sum(slow, sum(rest)), **sums}


def _sum(stalls: pl.DataFrame, lost_ns: int) -> dict[str, int]:
    hidden = int((stalls["lost_ns"] < _HIDDEN_RATIO * stalls["dur_ns"]).sum())
    return {"stalls": stalls.height, "hidden": hidden, "lost_ns": lost_ns}


def _lost(row: Mapping[str, Any], idle_of: Mapping[Device, Spans]) -> Spans:
    """Return the time that an event took from its GPU; a rearrangement takes all of its own."""
    if row["kind"] == "rearrangement":
        return Spans.of([row["start_ns"]], [row["end_ns"]])
    return _idle_in(row, idle_of)


def _idle_by_device(idle: pl.DataFrame) -> dict[Device, Spans]:
    return {
        key: Spans.of(part["start_ns"].to_numpy(), part["end_ns"].to_numpy())
        for key, part in _by_device(idle)
    }


def _by_device(frame: pl.DataFrame) -> Iterable[tuple[Any, pl.DataFrame]]:
    known = frame.with_columns(pl.col("global_pid").fill_null(-1))
    yield from known.group_by("global_pid", "device_id", maintain_order=True)


def _device(row: Mapping[str, Any]) -> Device:
    return (-1 if row["global_pid"] is None else row["global_pid"], row["device_id"])


def _idle_in(row: Mapping[str, Any], idle_of: Mapping[Device, Spans]) -> Spans:
    spans = idle_of.get(_device(row), Spans.of([], []))
    return spans.clipped(row["start_ns"], row["end_ns"])


def _with_idle(gaps: pl.DataFrame, idle_of: Mapping[Device, Spans]) -> pl.DataFrame:
    """Add ``idle_ns``: how long the GPU was idle in each gap."""
    idle = [_idle_in(row, idle_of).length for row in gaps.iter_rows(named=True)]
    return gaps.with_columns(pl.Series("idle_ns", idle, pl.Int64))


def _placed(gaps: pl.DataFrame, device_steps: pl.DataFrame) -> pl.DataFrame:
    """Add ``step`` and ``phase`` of the GPU in the middle of each gap, null outside any."""
    keys = ["_pid", "device_id"]
    steps = device_steps.select(
        pl.col("global_pid").fill_null(-1).alias("_pid"), "device_id", "step",
        pl.col("phase").fill_null(UNATTRIBUTED), pl.col("start_ns").alias("_at"),
    )  # fmt: skip
    return (
        gaps.with_columns(
            pl.col("global_pid").fill_null(-1).alias("_pid"),
            ((pl.col("start_ns") + pl.col("end_ns")) // 2).alias("_at"),
        )
        .sort("_at")
        # Both are sorted; polars cannot check it beside ``by``, and warns.
        .join_asof(
            steps.sort("_at"), on="_at", by=keys, strategy="backward", check_sortedness=False
        )
        .drop("_pid", "_at")
    )


def _code_loads(gaps: pl.DataFrame) -> list[dict[str, Any]]:
    return [
        {**row, "devices": 1, "lost_ns": row["idle_ns"]}
        for row in gaps.filter(pl.col("kind") == "code_load").iter_rows(named=True)
    ]


def _silences(
    gaps: pl.DataFrame, device_steps: pl.DataFrame, ranges: pl.DataFrame | None
) -> list[dict[str, Any]]:
    """Return the quiet gaps of main threads that leave a GPU idle for unusually long."""
    quiet = gaps.filter((pl.col("kind") == "quiet") & pl.col("is_main"))
    usual = _usual_silence(quiet, device_steps)
    rows = []
    for row in quiet.iter_rows(named=True):
        typical = usual.get(row["phase"] or UNATTRIBUTED, 0.0)
        if row["idle_ns"] > max(SHORTEST_SILENCE_NS, SLOW_RATIO * typical):
            more = {"kind": "silence", "devices": 1, "usual_ns": typical}
            inside = _is_inside(row, ranges)
            rows.append({**row, **more, "lost_ns": row["idle_ns"], "in_step": inside})
    return rows


def _usual_silence(quiet: pl.DataFrame, device_steps: pl.DataFrame) -> dict[str, float]:
    """Return by phase the median over steps of the longest idle silence in each, ns.

    A phase of few steps has no median of its own: that of all steps stands in.
    """
    keys = ["global_pid", "device_id", "step", "phase"]
    steps = device_steps.with_columns(pl.col("phase").fill_null(UNATTRIBUTED))
    longest = quiet.group_by(keys).agg(pl.col("idle_ns").max())
    table = steps.join(longest, on=keys, how="left", nulls_equal=True).with_columns(
        pl.col("idle_ns").fill_null(0)
    )
    if table.is_empty():
        return {}
    overall = table["idle_ns"].median()
    by_phase = table.group_by("phase").agg(
        pl.when(pl.len() >= _FEWEST_STEPS)
        .then(pl.col("idle_ns").median())
        .otherwise(pl.lit(overall))
        .alias("usual_ns")
    )
    return dict(by_phase.select("phase", "usual_ns").iter_rows())


def _is_inside(row: Mapping[str, Any], ranges: pl.DataFrame | None) -> bool | None:
    if ranges is None or ranges.is_empty():
        return None
    holds = (
        pl.col("global_pid").eq_missing(row["global_pid"])
        & (pl.col("start_ns") <= row["start_ns"])
        & (pl.col("end_ns") >= row["end_ns"])
    )
    return not ranges.filter(holds).is_empty()


def _rearrangements(
    rearrangements: pl.DataFrame, device_steps: pl.DataFrame
) -> list[dict[str, Any]]:
    """Return rearrangements, in the steps of the first GPU: all ranks take part."""
    if rearrangements.is_empty():
        return []
    first = device_steps.sort("device_id", "global_pid").row(0, named=True)
    here = [pl.lit(first[key], pl.Int64).alias(key) for key in ("global_pid", "device_id")]
    taken = pl.col("end_ns") - pl.col("start_ns")
    placed = _placed(rearrangements.with_columns(here), device_steps).select(
        pl.lit("rearrangement").alias("kind"),
        *("step", "phase", "start_ns", "end_ns"),
        pl.col("ranks").alias("devices"),
        taken.alias("dur_ns"),
        taken.alias("lost_ns"),
    )
    return placed.to_dicts()


def _slow_steps(
    device_steps: pl.DataFrame, idle_of: Mapping[Device, Spans], events: pl.DataFrame
) -> list[dict[str, Any]]:
    """Return the steps that took far longer than usual, one row for all GPUs that share one.

    That is 3 times what is usual for as much to do (``with_typical``). Where there is no usual
    length, a step is slow of which events took more than half.
    """
    pieces = {
        kind: Spans.union(
            _lost(row, idle_of)
            for row in events.filter(pl.col("kind") == kind).iter_rows(named=True)
        )
        for kind in EVENTS
    }
    lost = Spans.union(pieces.values())
    found = [
        {**row, **_explained(row, pieces, events)}
        for _, steps in _by_device(device_steps)
        for row in _slow_on(steps, lost)
    ]
    return _shared(found)


def _slow_on(steps: pl.DataFrame, lost: Spans) -> list[dict[str, Any]]:
    """Return the slow steps of one GPU.

    Args:
        steps: Its rows of ``device_steps``, with what ``with_work`` adds.
        lost: What events took.
    """
    # A key of -1 stands for a process that the export does not name.
    named = steps.with_columns(pl.col("global_pid").replace(-1, None))
    table = named.sort("start_ns").with_columns(pl.int_range(pl.len()).alias("slice"))
    # What runs before the first step is none.
    table = table.filter(pl.col("step").is_not_null() | (pl.col("slice") > 0))
    # Idle steps wait for requests; how long is the workload's.
    judged = with_typical(table).filter(pl.col("phase") != "idle")
    rows = []
    for row in judged.iter_rows(named=True):
        taken = lost.clipped(row["start_ns"], row["end_ns"]).length
        usual = row["typical_ns"]
        is_slow = row["wall_ns"] > SLOW_RATIO * usual if usual else 2 * taken > row["wall_ns"]
        if is_slow:
            more = {
                "kind": "slow_step",
                "devices": 1,
                "dur_ns": row["wall_ns"],
                "usual_ns": usual,
                "lost_ns": round(row["wall_ns"] - usual) if usual else taken,
            }
            rows.append({**row, **more})
    return rows


def _explained(
    row: Mapping[str, Any], pieces: Mapping[str, Spans], events: pl.DataFrame
) -> dict[str, Any]:
    """Return what made a step slow, and the call that ended the longest of it."""
    part = {
        kind: spans.clipped(row["start_ns"], row["end_ns"]).length for kind, spans in pieces.items()
    }
    cause = max(part, key=lambda kind: part[kind])
    if not part[cause] or part[cause] < _LEAST_CAUSE * row["lost_ns"]:
        return {"cause": None, "call": None}
    here = events.filter(
        (pl.col("kind") == cause)
        & (pl.col("start_ns") < row["end_ns"])
        & (pl.col("end_ns") > row["start_ns"])
    )
    longest = here.sort("lost_ns", "start_ns", descending=[True, False]).row(0, named=True)
    return {"cause": cause, "call": longest["call"]}


def _shared(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Put slow steps of several GPUs that mostly overlap into the longest one's row."""
    kept: list[dict[str, Any]] = []
    for row in sorted(rows, key=lambda row: (-row["lost_ns"], row["start_ns"], row["device_id"])):
        host = next((known for known in kept if _is_same_stall(row, known)), None)
        if host is None:
            kept.append({**row, "_seen": {_device(row)}})
        else:
            host["_seen"].add(_device(row))
            host["devices"] = len(host["_seen"])
    return kept


def _is_same_stall(row: Mapping[str, Any], known: Mapping[str, Any]) -> bool:
    shared = min(row["end_ns"], known["end_ns"]) - max(row["start_ns"], known["start_ns"])
    return _device(row) not in known["_seen"] and 2 * shared > row["dur_ns"]


def _frame(rows: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame([{key: row.get(key) for key in _SCHEMA} for row in rows], schema=_SCHEMA)
