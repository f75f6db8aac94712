"""Rows of an engine's dummy runs: the batches of placeholders with which it sizes its memory.

They are as long as the largest batch and every token in them takes the same route, so that one
expert looks hot which nobody asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

# Equal routes from a batch's first token on. A prompt that repeats one token so often is no
# prompt: position alone changes routes from the second layer on.
_LONG = 32
_EQUAL = 1e-4


class Route(NamedTuple):
    """What one token chose in one layer; what the log does not tell is None."""

    token: int
    experts: tuple[int, ...]
    weights: tuple[float, ...] | None
    step: Any = None
    phase: Any = None
    domain: Any = None
    padding: bool | None = None


@dataclass
class _Stream:
    """Routes of one request in one layer: those equal from a batch's start are held back."""

    head: list[Route] = field(default_factory=list)
    last: int = -1
    in_head: bool = False


class DummyFilter:
    """Tells dummy rows from real ones while a log is read, holding back only equal ones.

    Dummy are, from the first token of a batch on, equal routes: 32 and more; or two and more to
    the experts 0 to k - 1; or a whole batch of two and more whose keys come again.
    """

    def __init__(self) -> None:
        self._streams: dict[tuple[str, int], _Stream] = {}

    def feed(self, request: str, layer: int, row: Route) -> Iterator[tuple[Route, bool]]:
        """Take the next route, and yield those that are decided, each with whether it is dummy."""
        stream = self._streams.setdefault((request, layer), _Stream())
        if row.token <= stream.last or stream.last < 0:
            # A batch begins; the keys of the one before come again.
            yield from self._release(stream, is_whole=stream.in_head)
            stream.in_head = True
        elif stream.in_head and row[1:3] != stream.head[0][1:3]:
            yield from self._release(stream, is_whole=False)
            stream.in_head = False
        stream.last = row.token
        if stream.in_head:
            stream.head.append(row)
        else:
            yield row, False

    def finish(self) -> Iterator[tuple[tuple[str, int], Route, bool]]:
        """Yield what is still held back, with its request and layer."""
        for key, stream in self._streams.items():
            for row, is_dummy in self._release(stream, is_whole=False):
                yield key, row, is_dummy

    @staticmethod
    def _release(stream: _Stream, *, is_whole: bool) -> Iterator[tuple[Route, bool]]:
        head, stream.head = stream.head, []
        if not head:
            return
        experts, weights = head[0].experts, head[0].weights
        is_first = sorted(experts) == list(range(len(experts)))
        is_dummy = (
            len(head) >= _LONG
            or (len(head) >= 2 and (is_whole or is_first))
            or (is_first and weights is not None and _are_equal(weights))
        )
        for row in head:
            yield row, is_dummy


def _are_equal(weights: tuple[float, ...]) -> bool:
    """Tell whether a router saw no difference between experts: it was fed zeros."""
    return len(weights) > 1 and max(weights) - min(weights) < _EQUAL
