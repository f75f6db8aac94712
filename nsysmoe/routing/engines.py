"""Which tokens ran in which pass of several engines: data-parallel ranks, each with its requests.

Every engine has steps of its own, replayed as one engine's are (``schedule``). The engines meet in
every forward pass: what an expert computes are the tokens of all of them. The record of the run
tells which data-parallel rank served a request, the trace which process ran which step in which
pass. What ties both together is the record's process ids; without them lengths and labels, which
mostly leave one way. Processes with the same steps in the same passes (the tensor-parallel ranks of
one engine, or engines that kept step) need not be told apart: the tokens of a pass are the same.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from nsysmoe.errors import MissingDataError, RoutingError
from nsysmoe.routing.schedule import replay

if TYPE_CHECKING:
    from collections.abc import Sequence

    import polars as pl

    from nsysmoe.routing.run import RunRecord

_LABEL = ("context_requests", "context_tokens", "generation_requests", "generation_tokens")
# Pass (None where no MoE kernel ran), then the numbers of the label.
_Timetable = tuple[tuple[int | None, ...], ...]


@dataclass(frozen=True)
class Meetings:
    """What the engines of a run fed in every pass.

    Attributes:
        slices: ``step`` (the pass), ``engine`` (data-parallel rank), ``request`` (of the run, in
            the order of the record), ``first`` token, ``tokens``.
        left: Tokens of the run that come after the last step of the trace.
        done: Processes (``global_pid``) all of whose tokens ran in labelled steps: what else they
            computed was of no request.
        by: How engines were told apart: ``pid`` (the record's process ids), ``steps`` (lengths and
            labels allow one way), or ``order`` (they allow several; taken is the order of GPUs).
        is_refuted: Whether the record knows processes of the trace by their ids, but gives them
            ranks that they cannot all have; ``by`` is then another way.
    """

    slices: pl.DataFrame
    left: int
    done: frozenset[int]
    by: str
    is_refuted: bool = False


def replay_engines(launches: pl.DataFrame, steps: pl.DataFrame, run: RunRecord) -> Meetings:
    """Assign the tokens of every data-parallel rank to passes, checking every label.

    Args:
        launches: ``global_pid``, ``process_id``, ``rank``, ``step`` and ``pass`` of MoE kernels.
        steps: View ``steps``.
        run: Lengths of the requests, which rank served each, and the scheduler's limits.

    Raises:
        MissingDataError: The record does not tell who served what, or the trace no passes.
        RoutingError: No way to give the engines their requests agrees with the labels.
    """
    import polars as pl  # noqa: PLC0415 - slow to import

    tables = _timetables(launches, steps)
    each = _processes(launches)
    slots = _slots(tables, each, run)
    served = _served(run)
    fits = _Fits(run, served)
    chosen, by = _by_pid(each, tables, run), "pid"
    if chosen is None:
        chosen, by = _by_steps(slots, fits)
    replays = [fits.replayed(engine, table) for engine, table in enumerate(chosen)]
    parts = [
        _in_passes(slices, table, served[engine], engine)
        for engine, (table, (slices, _)) in enumerate(zip(chosen, replays, strict=True))
    ]
    left = [count for _, count in replays]
    open_ = {table for table, count in zip(chosen, left, strict=True) if count}
    done = frozenset(pid for pid, table in tables.items() if table not in open_)
    # Ids of which the record knows none are of another host, or of a container: they say nothing.
    is_refuted = by != "pid" and any(process_id in run.workers for process_id, _ in each.values())
    return Meetings(pl.concat(parts), sum(left), done, by, is_refuted)


class _Fits:
    """Replays of an engine's requests by a timetable, each made once."""

    def __init__(self, run: RunRecord, served: Sequence[Sequence[int]]) -> None:
        self._runs = [
            replace(
                run,
                prompt_tokens=tuple(run.prompt_tokens[number] for number in numbers),
                output_tokens=tuple(run.output_tokens[number] for number in numbers),
            )
            for numbers in served
        ]
        self._known: dict[object, tuple[pl.DataFrame, int] | RoutingError] = {}

    @property
    def engines(self) -> range:
        """The data-parallel ranks."""
        return range(len(self._runs))

    def replayed(self, engine: int, table: _Timetable) -> tuple[pl.DataFrame, int]:
        """Return slices and what is left, as ``replay`` does; raise what it raises."""
        run = self._runs[engine]
        # Ranks whose requests have the same lengths need one replay.
        key = (run.prompt_tokens, run.output_tokens, table)
        if key not in self._known:
            rows = (
                dict(zip(("step", *_LABEL), (step, *row[1:]), strict=True))
                for step, row in enumerate(table)
            )
            try:
                self._known[key] = replay(rows, run)
            except RoutingError as error:
                self._known[key] = error
        found = self._known[key]
        if isinstance(found, RoutingError):
            raise RoutingError(f"data-parallel rank {engine}: {found}")
        return found

    def allow(self, engine: int, table: _Timetable) -> bool:
        """Tell whether an engine with these steps may have served the rank's requests."""
        try:
            self.replayed(engine, table)
        except RoutingError:
            return False
        return True


def _served(run: RunRecord) -> list[list[int]]:
    """Return the requests of each data-parallel rank, in their order."""
    if run.request_ranks is None:
        raise MissingDataError(
            f"{run.source} does not say which data-parallel rank served each request (`rank`): "
            "which tokens met in a pass is not known"
        )
    served: list[list[int]] = [[] for _ in range(run.data_parallel)]
    for request, rank in enumerate(run.request_ranks):
        if rank >= run.data_parallel:
            raise RoutingError(
                f"{run.source}: request {request} ran on data-parallel rank {rank}, of "
                f"{run.data_parallel}"
            )
        served[rank].append(request)
    return served


def _processes(launches: pl.DataFrame) -> dict[int, tuple[int, int]]:
    """Return by process its id and the number of its ranks, in the order of ranks."""
    import polars as pl  # noqa: PLC0415 - slow to import

    rows = (
        launches.group_by("global_pid", "process_id")
        .agg(pl.col("rank").min().alias("first"), pl.col("rank").n_unique().alias("ranks"))
        .sort("first")
    )
    return {row["global_pid"]: (row["process_id"], row["ranks"]) for row in rows.to_dicts()}


def _timetables(launches: pl.DataFrame, steps: pl.DataFrame) -> dict[int, _Timetable]:
    """Return by process that ran MoE kernels its steps, each with its pass."""
    import polars as pl  # noqa: PLC0415 - slow to import

    placed = (
        launches.drop_nulls("step")
        .group_by("global_pid", "step")
        .agg(pl.col("pass").min(), pl.col("pass").max().alias("last"))
    )
    if (odd := placed.filter(pl.col("pass") != pl.col("last"))).height:
        row = odd.sort("global_pid", "step").row(0, named=True)
        raise RoutingError(
            f"step {row['step']} of a process ran in passes {row['pass']} to {row['last']}: what "
            "met in a pass is not known"
        )
    tables = (
        steps.join(placed, on=["global_pid", "step"], how="left")
        .sort("global_pid", "step")
        .select("global_pid", "pass", *_LABEL)
        .partition_by("global_pid", as_dict=True, include_key=False, maintain_order=True)
    )
    found = {pid: tuple(part.rows()) for (pid,), part in tables.items()}
    # A process without a request has no step.
    return {pid: found.get(pid, ()) for pid in _processes(launches)}


def _slots(
    tables: dict[int, _Timetable], each: dict[int, tuple[int, int]], run: RunRecord
) -> list[_Timetable]:
    """Return the timetable of every engine, in the order of GPUs; its ranks all have the same."""
    tensor, rest = divmod(sum(count for _, count in each.values()), run.data_parallel)
    if rest:
        raise RoutingError(
            f"{run.source} has {run.data_parallel} data-parallel ranks, which do not divide the "
            f"trace's {tensor * run.data_parallel + rest} ranks with MoE kernels"
        )
    slots: list[_Timetable] = []
    held: dict[_Timetable, int] = {}
    for pid, (_, count) in each.items():
        table = tables[pid]
        engines, held[table] = divmod(held.get(table, 0) + count, tensor)
        slots += [table] * engines
    if any(held.values()):
        raise RoutingError(
            f"ranks of the trace that ran the same steps are not groups of {tensor}, as many as "
            "the record's engines have: they are not of one run"
        )
    return slots


def _by_pid(
    each: dict[int, tuple[int, int]], tables: dict[int, _Timetable], run: RunRecord
) -> list[_Timetable] | None:
    """Return the timetable of each engine by the record's process ids; None where they differ."""
    found: dict[int, _Timetable] = {}
    for pid, (process_id, _) in each.items():
        worker = run.workers.get(process_id)
        if worker is None or found.setdefault(worker.engine, tables[pid]) != tables[pid]:
            return None
    engines = range(run.data_parallel)
    return [found[engine] for engine in engines] if found.keys() == set(engines) else None


def _by_steps(slots: list[_Timetable], fits: _Fits) -> tuple[list[_Timetable], str]:
    """Return the timetable of each engine as labels allow, and whether they allow but one way."""
    allowed = [
        {place for place, table in enumerate(slots) if fits.allow(engine, table)}
        for engine in fits.engines
    ]
    given = _matched(allowed)
    if given is None:
        # Say what is wrong with the first that fits nowhere, or else with the order of GPUs.
        nowhere = (engine for engine in fits.engines if not allowed[engine])
        for engine in (*nowhere, *fits.engines):
            fits.replayed(engine, slots[engine])
        raise RoutingError("the trace's engines cannot each have served one rank's requests")
    for engine in fits.engines:
        same = {place for place, table in enumerate(slots) if table == slots[given[engine]]}
        others = [places - same if n == engine else places for n, places in enumerate(allowed)]
        if _matched(others) is not None:
            return [slots[place] for place in given], "order"
    return [slots[place] for place in given], "steps"


def _matched(allowed: Sequence[set[int]]) -> list[int] | None:
    """Give every engine a place of its own, its own number where that can be; None if impossible.

    Bipartite matching by augmenting paths (Kuhn 1955).
    """
    holder: dict[int, int] = {
        engine: engine for engine, places in enumerate(allowed) if engine in places
    }

    def find(engine: int, tried: set[int]) -> bool:
        for place in sorted(allowed[engine] - tried):
            tried.add(place)
            if place not in holder or find(holder[place], tried):
                holder[place] = engine
                return True
        return False

    for engine in range(len(allowed)):
        if engine not in holder.values() and not find(engine, set()):
            return None
    places = {engine: place for place, engine in holder.items()}
    return [places[engine] for engine in range(len(allowed))]


def _in_passes(
    slices: pl.DataFrame, table: _Timetable, requests: Sequence[int], engine: int
) -> pl.DataFrame:
    """Number steps by pass and requests by the record; steps whose kernels are not there go."""
    import polars as pl  # noqa: PLC0415 - slow to import

    passes = pl.Series([row[0] for row in table], dtype=pl.Int64)
    numbers = pl.Series(requests, dtype=pl.UInt32)
    return slices.select(
        passes.gather(slices["step"]).alias("step"),
        pl.lit(engine, pl.Int64).alias("engine"),
        numbers.gather(slices["request"]).alias("request"),
        "first",
        "tokens",
    ).drop_nulls("step")
