"""The record of a run: requests, limits of the scheduler, and where experts lived."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nsysmoe.bounded_files import read_json_object
from nsysmoe.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True)
class Worker:
    """A process of vLLM's that ran the model.

    Attributes:
        engine: Data-parallel rank.
        expert_rank: Which part of the experts it holds; None where not recorded.
    """

    engine: int
    expert_rank: int | None


@dataclass(frozen=True)
class RunRecord:
    """What a benchmark script wrote down about a run of vLLM.

    Attributes:
        source: The file.
        engine: vLLM's version; None where not recorded.
        prompt_tokens: Length of each request's prompt, in order of arrival.
        output_tokens: Tokens that each request was given.
        max_running: Requests that may run at once (``max_num_seqs``); None where unknown.
        max_step_tokens: Tokens that a step may hold (``max_num_batched_tokens``).
        expert_parallel: Whether each rank holds whole experts.
        data_parallel: Engines that share the experts; 1 where not recorded.
        map_before: Logical expert of each physical one, by layer, before the first round;
            None without EPLB.
        map_after: The same after the last.
        request_ranks: Data-parallel rank that served each request; None where not recorded.
        workers: vLLM's processes by their ids; empty where not recorded.
    """

    source: str
    engine: str | None
    prompt_tokens: tuple[int, ...]
    output_tokens: tuple[int, ...]
    max_running: int | None
    max_step_tokens: int | None
    expert_parallel: bool
    data_parallel: int
    map_before: tuple[tuple[int, ...], ...] | None
    map_after: tuple[tuple[int, ...], ...] | None
    request_ranks: tuple[int, ...] | None = None
    workers: Mapping[int, Worker] = field(default_factory=dict)


def read_run(path: Path) -> RunRecord:
    """Read a run's JSON: ``args``, ``runs[-1].requests``, ``eplb_before`` and ``eplb_after``.

    Raises:
        InputError: The file is unreadable or lacks what is needed; the message names the key.
    """
    document = read_json_object(path)
    where = str(path)
    arguments = document.get("args")
    if not isinstance(arguments, dict):
        raise InputError(f"{where} has no object `args` with the options of the run")
    requests = _requests(document, where)
    engine = document.get("vllm")
    return RunRecord(
        source=where,
        engine=engine if isinstance(engine, str) else None,
        prompt_tokens=tuple(_count(row, "prompt_tokens", where) for row in requests),
        output_tokens=tuple(_count(row, "output_tokens", where) for row in requests),
        max_running=_optional_count(arguments, "max_num_seqs", where),
        max_step_tokens=_optional_count(arguments, "max_num_batched_tokens", where),
        expert_parallel=_switch(arguments, "ep", where),
        data_parallel=_optional_count(arguments, "dp", where) or 1,
        map_before=map_of_state(document.get("eplb_before"), f"{where}: `eplb_before`"),
        map_after=map_of_state(document.get("eplb_after"), f"{where}: `eplb_after`"),
        request_ranks=_ranks(requests, where),
        workers=_workers(document.get("workers"), where),
    )


def record_beside(trace: Path) -> Path | None:
    """Return the record that lies beside a trace: ``off.run.json`` of ``off.sqlite``, or run.json.

    None where there is none.
    """
    names = (f"{trace.stem}.run.json", "run.json")
    return next((path for path in map(trace.with_name, names) if path.is_file()), None)


def _requests(document: dict[str, Any], where: str) -> list[dict[str, Any]]:
    runs = document.get("runs")
    last = runs[-1] if isinstance(runs, list) and runs else None
    requests = last.get("requests") if isinstance(last, dict) else None
    if (
        not isinstance(requests, list)
        or not requests
        or not all(isinstance(row, dict) for row in requests)
    ):
        raise InputError(f"{where} has no list `runs[-1].requests` of the requests that ran")
    return requests


def _count(row: dict[str, Any], key: str, where: str) -> int:
    value = row.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(f"{where}: `{key}` must be a number above 0")
    return value


def _optional_count(row: dict[str, Any], key: str, where: str) -> int | None:
    return None if row.get(key) is None else _count(row, key, where)


def _switch(row: dict[str, Any], key: str, where: str) -> bool:
    """Return whether an option is on, which it is where nothing is said."""
    value = row.get(key, "on")
    if value is True or value == "on":
        return True
    if value is False or value == "off":
        return False
    raise InputError(f'{where}: `{key}` must be "on" or "off"')


def _ranks(requests: list[dict[str, Any]], where: str) -> tuple[int, ...] | None:
    if any(row.get("rank") is None for row in requests):
        return None
    return tuple(_rank(row, "rank", where) for row in requests)


def _workers(rows: Any, where: str) -> dict[int, Worker]:
    """Return vLLM's processes: ``pid``, ``data_parallel_rank``, ``expert_parallel_rank``."""
    if rows is None:
        return {}
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{where}: `workers` must be a list of objects")
    return {
        _count(row, "pid", where): Worker(
            _rank(row, "data_parallel_rank", where),
            None
            if row.get("expert_parallel_rank") is None
            else _rank(row, "expert_parallel_rank", where),
        )
        for row in rows
    }


def _rank(row: dict[str, Any], key: str, where: str) -> int:
    value = row.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise InputError(f"{where}: `{key}` must be a number of 0 and more")
    return value


def map_of_state(states: Any, where: str) -> tuple[tuple[int, ...], ...] | None:
    """Return the map of the first rank's one model; all ranks hold the same."""
    state = states[0] if isinstance(states, list) and states else None
    if state is None:
        return None
    models = state.get("models") if isinstance(state, dict) else None
    if not isinstance(models, dict) or len(models) != 1:
        raise InputError(f"{where} must hold one model")
    (model,) = models.values()
    layers = model.get("physical_to_logical_map") if isinstance(model, dict) else None
    if not isinstance(layers, list) or not is_matrix(layers):
        raise InputError(f"{where} has no `physical_to_logical_map` of layers by experts")
    return tuple(tuple(row) for row in layers)


def is_matrix(layers: list[Any]) -> bool:
    """Tell whether JSON holds a map: layers by slots, each with an expert below their number."""
    return (
        bool(layers)
        and all(isinstance(row, list) and row for row in layers)
        and len({len(row) for row in layers}) == 1
        # There are as many physical experts as logical ones, or more.
        and all(isinstance(value, int) and 0 <= value < len(row) for row in layers for value in row)
    )
