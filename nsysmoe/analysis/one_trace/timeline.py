"""What ran in one step of a trace, on every rank."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from nsysmoe.errors import MissingDataError

if TYPE_CHECKING:
    from pathlib import Path

    import polars as pl

    from nsysmoe.trace import Trace

Choice = int | Literal["slowest", "median"]

# What a browser draws without a pause, and a page of a few MB holds.
_MOST_KERNELS = 4_000
COLUMNS = ("global_pid", "process_id", "device_id", "kind", "function", "start_ns", "dur_ns")
_DEVICE = ["global_pid", "device_id"]


class StepKernels(NamedTuple):
    """The kernels of one step.

    Attributes:
        rows: Over all ranks in order of time: ``rank`` (None for what is none), ``process``,
            ``device``, ``start_ns``, ``dur_ns``, ``name``, ``kind`` (view ``timeline``).
        reduced: What was left out to keep a page small, in a sentence; None where nothing was.
    """

    rows: tuple[dict[str, Any], ...]
    reduced: str | None


def step_kernels(trace: Trace, step: dict[str, Any], ranks: pl.DataFrame) -> StepKernels:
    """Return what starts in a step.

    Args:
        trace: The trace.
        step: ``start_ns`` and ``wall_ns`` of the step.
        ranks: ``rank``, ``global_pid``, ``device_id`` of each rank.

    Raises:
        NsysmoeError: The trace cannot be used.
    """
    import polars as pl  # noqa: PLC0415

    during = (step["start_ns"], step["start_ns"] + step["wall_ns"])
    events = trace.frame("timeline", COLUMNS, during)
    # Rows come in any order, and several may start at once or take as long.
    ties = ("process_id", *_DEVICE, "kind", "function")
    kept = events.sort(-pl.col("dur_ns"), "start_ns", *ties).head(_MOST_KERNELS)
    rows = (
        kept.join(ranks, on=_DEVICE, how="left", nulls_equal=True)
        .sort("start_ns", "rank", *ties, "dur_ns")
        .rename({"process_id": "process", "device_id": "device", "function": "name"})
        .select("rank", "process", "device", "start_ns", "dur_ns", "name", "kind")
    )
    note = (
        f"The timeline shows the {_MOST_KERNELS:,} longest of {events.height:,} kernels and copies "
        "of its step."
    )
    return StepKernels(
        tuple(rows.iter_rows(named=True)), note if events.height > _MOST_KERNELS else None
    )


def chosen_step(
    path: Path,
    table: pl.DataFrame,
    distorted: pl.DataFrame | None,
    choice: Choice,
    phase: str | None = None,
) -> dict[str, Any]:
    """Return the step that a choice means.

    Args:
        path: The file that a message names.
        table: Steps; ``slice``, ``step``, ``phase``, ``start_ns``, ``wall_ns``, ``launches``.
        distorted: Those that are not chosen, by ``slice``, unless asked for by number; None
            where that is not known.
        choice: A step's number, or which one by wall time.
        phase: The phase that the median is chosen from; any where left out.

    Returns:
        Its row of ``table``.

    Raises:
        MissingDataError: There is no such step.
    """
    import polars as pl  # noqa: PLC0415

    if table.is_empty():
        raise MissingDataError(f"{path} holds no steps")
    if isinstance(choice, int):
        return _numbered(path, table, choice)
    usual = table if distorted is None else table.join(distorted, on="slice", how="anti")
    ranked = (usual if usual.height else table).sort("wall_ns")
    if phase is not None and choice == "median":
        of_phase = ranked.filter(pl.col("phase") == phase)
        # Every step of the phase may be distorted.
        ranked = of_phase if of_phase.height else ranked
    worked = ranked.filter(pl.col("launches") > 0)
    ranked = worked if worked.height else ranked
    return ranked.row(-1 if choice == "slowest" else (ranked.height - 1) // 2, named=True)


def _numbered(path: Path, table: pl.DataFrame, number: int) -> dict[str, Any]:
    found = table.filter(table["step"] == number)
    if found.is_empty():
        known = [step for step in table["step"] if step is not None]
        told = f"they go from {min(known)} to {max(known)}" if known else "none is known"
        raise MissingDataError(f"{path} has no step {number}: {told}")
    return found.row(0, named=True)
