"""Which tokens ran in which step: the engine's first-come-first-served order, replayed.

vLLM names each step ``execute_context_{requests}({tokens})_generation_{requests}({tokens})``: a
request is in its context until it was given its first token, so a prompt that was cut into chunks
counts as context throughout (``compute_iteration_details``, vLLM 0.26). Requests are admitted in
the order of arrival. So the labels and the lengths of the requests tell all, and contradict each
other where something else happened (preemption, prefix caching, speculation, other traffic).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nsysmoe.errors import RoutingError

if TYPE_CHECKING:
    from collections.abc import Iterable

    import polars as pl

    from nsysmoe.routing.run import RunRecord


@dataclass
class _Queue:
    """Requests in order of arrival, and how far each is."""

    prompts: tuple[int, ...]
    totals: tuple[int, ...]
    done: list[int] = field(default_factory=list)
    running: list[int] = field(default_factory=list)
    slices: list[tuple[int, int, int, int]] = field(default_factory=list)

    @property
    def arrived(self) -> int:
        """Requests that ever ran."""
        return len(self.done)

    def generating(self) -> list[int]:
        """Return the running requests whose prompt has been read."""
        self.running = [n for n in self.running if self.done[n] < self.totals[n]]
        return [n for n in self.running if self.done[n] >= self.prompts[n]]

    def reading(self) -> list[int]:
        """Return the running requests whose prompt has been read in part."""
        return [n for n in self.running if self.done[n] < self.prompts[n]]

    def admit(self) -> int:
        """Let the next request run, and return its number."""
        self.running.append(self.arrived)
        self.done.append(0)
        return self.running[-1]

    def feed(self, step: int, request: int, tokens: int) -> None:
        self.slices.append((step, request, self.done[request], tokens))
        self.done[request] += tokens

    def left(self) -> int:
        return sum(self.totals) - sum(self.done)


def replay(steps: Iterable[dict[str, Any]], run: RunRecord) -> tuple[pl.DataFrame, int]:
    """Assign tokens to steps, checking every label.

    Args:
        steps: Rows of view ``steps`` of one process, in order.
        run: Lengths of the requests, and the scheduler's limits.

    Returns:
        Slices (``step``, ``request``, ``first`` token, ``tokens``), and how many tokens of the
        run come after the last step: more than 0 only where the trace ends amid work.

    Raises:
        RoutingError: A label says something else than the order of arrival.
    """
    import polars as pl  # noqa: PLC0415 - slow to import

    totals = tuple(p + o - 1 for p, o in zip(run.prompt_tokens, run.output_tokens, strict=True))
    queue = _Queue(run.prompt_tokens, totals)
    is_idle = False
    for row in steps:
        is_idle = row["context_requests"] == 0 and row["generation_requests"] == 0
        _generate(queue, row)
        _read(queue, row, run)
    if is_idle and queue.left():
        raise RoutingError(
            f"the last step of the trace is idle, but {queue.left():,} of {sum(totals):,} tokens "
            f"of {run.source} never ran: the trace is of another run or of a part of it"
        )
    slices = pl.DataFrame(
        queue.slices,
        schema={
            "step": pl.Int64, "request": pl.UInt32, "first": pl.UInt32, "tokens": pl.UInt32,
        },
        orient="row",
    )  # fmt: skip
    return slices, queue.left()


def _generate(queue: _Queue, row: dict[str, Any]) -> None:
    """Feed one token of each request that generates."""
    ready = queue.generating()
    _check(row, "generation requests", len(ready), row["generation_requests"])
    _check(row, "generation tokens", len(ready), row["generation_tokens"])
    for request in ready:
        queue.feed(row["step"], request, 1)


def _read(queue: _Queue, row: dict[str, Any], run: RunRecord) -> None:
    """Feed prompts: those begun first, then those that wait, in order; the last may be cut."""
    requests, tokens = row["context_requests"], row["context_tokens"]
    begun = queue.reading()
    if len(begun) > requests:
        _check(row, "context requests", f"{len(begun)} or more", requests)
    newcomers = min(requests - len(begun), len(queue.prompts) - queue.arrived)
    _check(row, "context requests", len(begun) + newcomers, requests)
    for _ in range(newcomers):
        begun.append(queue.admit())
    left = tokens
    for place, request in enumerate(begun):
        whole = queue.prompts[request] - queue.done[request]
        behind = len(begun) - place - 1
        # Only the last may be cut: the budget ends there.
        least = whole + behind if behind else 1
        if left < least:
            _check(row, "context tokens", f"{tokens - left + least:,} or more", tokens)
        part = min(whole, left)
        queue.feed(row["step"], request, part)
        left -= part
    _check(row, "context tokens", tokens - left, tokens)
    _limits(queue, row, run)


def _limits(queue: _Queue, row: dict[str, Any], run: RunRecord) -> None:
    """Check what the scheduler may do: how many run, how many tokens, and why a prompt is cut."""
    used = row["context_tokens"] + row["generation_tokens"]
    if run.max_step_tokens is not None:
        if used > run.max_step_tokens:
            _check(row, "tokens", f"{run.max_step_tokens:,} at most", used)
        if queue.reading() and used < run.max_step_tokens:
            _check(row, "tokens", f"{run.max_step_tokens:,} where a prompt is cut", used)
    running = row["context_requests"] + row["generation_requests"]
    if run.max_running is not None and running > run.max_running:
        _check(row, "requests", f"{run.max_running:,} at most", running)


def _check(row: dict[str, Any], what: str, expected: int | str, found: int) -> None:
    if expected != found:
        raise RoutingError(
            f"step {row['step']} says {found:,} {what} where first come, first served gives "
            f"{expected if isinstance(expected, str) else f'{expected:,}'}: routing and trace are "
            "not of one run, or the engine preempted, cached or dropped requests"
        )
