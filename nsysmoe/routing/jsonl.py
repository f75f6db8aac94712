"""Routes in JSON lines: those of patched engines, a token each, and router traces, a batch each."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import polars as pl

from nsysmoe.bounded_files import read_lines
from nsysmoe.errors import InputError
from nsysmoe.routing.dummy import DummyFilter, Route
from nsysmoe.routing.forms import BATCH_ROWS, COUNTS_SCHEMA, TOKENS_SCHEMA, Tally, checked

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from nsysmoe.routing.forms import Level

_EXPERTS = ("topk_ids", "topk_experts", "topk_indices", "top_indices", "experts", "indices")
_WEIGHTS = ("topk_weights", "weights", "probs")
_LAYERS = ("layer", "layer_number", "layer_id")
_STEPS = ("step", "iteration", "batch_id", "forward_pass_id")
_REQUESTS = ("req_id", "request_id", "request")
_TOKENS = ("token_idx", "token", "position")
_PADDINGS = ("padding", "is_padding", "is_pad")
_COUNTS = ("tokens_per_expert", "expert_loads", "logical_count")
# Megatron numbers the layers of each head of multi-token prediction anew.
_HEAD, _HEAD_LAYERS = "mtp_idx", 1000


def jsonl_level(path: Path) -> Level:
    """Tell what the first line with routing holds.

    Raises:
        InputError: No line holds any.
    """
    for _, line in _lines(path):
        if _first(line, _EXPERTS) is not None:
            return "tokens"
        if _first(line, _COUNTS) is not None:
            return "counts"
    raise InputError(f"{path} has no line with routes: {', '.join(_EXPERTS)} or {_COUNTS[0]}")


def read_counts(path: Path) -> Iterator[pl.DataFrame]:
    """Yield counts from lines with a count for each expert, in a layer and a step."""
    rows: list[tuple[Any, ...]] = []
    for number, line in _lines(path):
        counts = _first(line, _COUNTS)
        if counts is None:
            continue
        layer, step = _layer(line, number, path), _first(line, _STEPS)
        if not isinstance(counts, list) or not all(_is_count(value) for value in counts):
            raise InputError(f"{path}, line {number}: counts of experts must be whole numbers")
        rows += [(step, layer, expert, count) for expert, count in enumerate(counts)]
        if len(rows) >= BATCH_ROWS:
            yield _frame(rows, ("step", "layer", "expert", "tokens"), path, "counts")
            rows = []
    if rows:
        yield _frame(rows, ("step", "layer", "expert", "tokens"), path, "counts")


def read_routes(path: Path, tally: Tally, *, keep_dummy: bool = False) -> Iterator[pl.DataFrame]:
    """Yield choices, without those of the engine's dummy runs unless told to keep them.

    Args:
        path: The log.
        tally: Counts the dummy rows, kept or not.
        keep_dummy: Keep them.

    Raises:
        InputError: A line is cut, or routes differ in how many experts they have.
    """
    batch = _Batch(path, tally, keep_dummy=keep_dummy)
    dummies = DummyFilter()
    for number, line in _lines(path):
        if _first(line, _EXPERTS) is not None:
            batch.feed(line, number, dummies)
        if batch.is_full:
            yield batch.take()
    for (request, layer), row, is_dummy in dummies.finish():
        batch.add(request, layer, row, is_dummy=is_dummy)
        if batch.is_full:
            yield batch.take()
    if batch.rows:
        yield batch.take()


class _Batch:
    """Choices that have not been handed on yet."""

    def __init__(self, path: Path, tally: Tally, *, keep_dummy: bool) -> None:
        self.path = path
        self.tally = tally
        self.keep_dummy = keep_dummy
        self.rows: list[tuple[Any, ...]] = []
        self.top_k: int | None = None

    @property
    def is_full(self) -> bool:
        return len(self.rows) >= BATCH_ROWS

    def feed(self, line: dict[str, Any], number: int, dummies: DummyFilter) -> None:
        """Add the routes of a line that are decided, and those before it that it decides."""
        request, layer = _request(line), _layer(line, number, self.path)
        for row in self.routes(line, number):
            if row.padding:
                # Padding is equal routes as well, and no dummy: the log says what it is.
                self.add(request, layer, row, is_dummy=False)
                continue
            for decided, is_dummy in dummies.feed(request, layer, row):
                self.add(request, layer, decided, is_dummy=is_dummy)

    def routes(self, line: dict[str, Any], number: int) -> Iterator[Route]:
        """Yield the routes of a line: one of a token, or those of a batch."""
        experts, weights = _first(line, _EXPERTS), _first(line, _WEIGHTS)
        if experts == [] and line.get("num_tokens") == 0:
            return
        if not isinstance(experts, list) or not experts:
            raise InputError(f"{self.path}, line {number}: a route must be a list of experts")
        first = _first(line, _TOKENS) or 0
        if not isinstance(first, int):
            raise InputError(f"{self.path}, line {number}: the token must be a number")
        step, paddings = _first(line, _STEPS), _first(line, _PADDINGS)
        if not isinstance(experts[0], list):
            experts, weights = [experts], None if weights is None else [weights]
        for place, route in enumerate(experts):
            self._check(route, number)
            shares = weights[place] if isinstance(weights, list) and place < len(weights) else None
            weight = _weights(shares, len(route))
            more = (line.get("phase"), line.get("domain"), _padding(paddings, place))
            yield Route(first + place, tuple(route), weight, step, *more)

    def add(
        self,
        request: str,
        layer: int,
        row: Route,
        *,
        is_dummy: bool,
    ) -> None:
        """Keep a route, or count it as dummy."""
        if is_dummy:
            self.tally.dummy_rows += len(row.experts)
            self.tally.dummy_tokens += 1
            if not self.keep_dummy:
                return
        known = (request, row.phase, row.step, layer, row.token, row.domain, row.padding)
        self.rows += [
            (*known, k, expert, row.weights[k] if row.weights else None)
            for k, expert in enumerate(row.experts)
        ]

    def take(self) -> pl.DataFrame:
        """Hand on what is there."""
        rows, self.rows = self.rows, []
        known = ("request", "phase", "step", "layer", "token", "domain", "padding")
        return _frame(rows, (*known, "k", "expert", "weight"), self.path, "tokens")

    def _check(self, route: Any, number: int) -> None:
        if not isinstance(route, list) or not all(_is_whole(expert) for expert in route):
            raise InputError(f"{self.path}, line {number}: experts must be whole numbers")
        self.top_k = self.top_k or len(route)
        if len(route) != self.top_k:
            raise InputError(
                f"{self.path}, line {number}: a route of {len(route)} experts, those before have "
                f"{self.top_k}"
            )


def _frame(
    rows: list[tuple[Any, ...]], names: tuple[str, ...], path: Path, level: Level
) -> pl.DataFrame:
    kinds = TOKENS_SCHEMA if level == "tokens" else COUNTS_SCHEMA
    # Wide first: a number that does not fit is named, not wrapped.
    schema = {name: pl.Int64 if kinds[name] == pl.Int32 else kinds[name] for name in names}
    try:
        frame = pl.DataFrame(rows, schema=schema, orient="row")
    # ValueError: a text that is half of a surrogate pair.
    except (pl.exceptions.PolarsError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{path}: {str(error).splitlines()[0]}") from error
    return checked(frame, path, level)


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the lines that are objects, numbered from 1."""
    for number, text in enumerate(read_lines(path), start=1):
        if text.strip():
            yield number, _object(text, number, path)


def _object(text: bytes, number: int, path: Path) -> dict[str, Any]:
    try:
        line = json.loads(text)
    except (ValueError, RecursionError) as error:
        cut = "" if text.endswith(b"\n") else ": it is cut off"
        raise InputError(f"{path}, line {number} is not JSON{cut}") from error
    if not isinstance(line, dict):
        raise InputError(f"{path}, line {number} is not a JSON object")
    return line


def _first(line: dict[str, Any], names: tuple[str, ...]) -> Any:
    return next((line[name] for name in names if line.get(name) is not None), None)


def _request(line: dict[str, Any]) -> str:
    """Return the request of a line; of a batch, whose requests are not told, the rank."""
    request = _first(line, _REQUESTS)
    if request is None and _is_whole(line.get("rank")):
        return f"rank{line['rank']}"
    return str(request or "0")


def _layer(line: dict[str, Any], number: int, path: Path) -> int:
    """Return the layer of a line, 0 where it tells none.

    Layers of the heads of multi-token prediction stand behind all others, from 1000 for the first
    head, from 2000 for the second.
    """
    layer, head = _first(line, _LAYERS) or 0, line.get(_HEAD)
    if not isinstance(layer, int):
        raise InputError(f"{path}, line {number}: the layer must be a number")
    return layer if head is None or not _is_whole(head) else layer + _HEAD_LAYERS * (head + 1)


def _weights(shares: Any, count: int) -> tuple[float, ...] | None:
    if not isinstance(shares, list) or len(shares) != count:
        return None
    return tuple(shares) if all(isinstance(share, (int, float)) for share in shares) else None


def _padding(marks: Any, place: int) -> bool | None:
    """Return whether a token is padding: one mark for the line, or one a token of the batch."""
    mark = marks[place] if isinstance(marks, list) and place < len(marks) else marks
    # Attention masks write 0 and 1.
    return bool(mark) if isinstance(mark, (bool, int)) else None


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return _is_whole(value) and value >= 0
