"""Which tokens of several engines met in which pass, against engines written for the purpose."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from random import Random
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nsysmoe.errors import MissingDataError, RoutingError
from nsysmoe.routing import RunRecord, replay, replay_engines
from nsysmoe.routing.run import Worker
from tests.routing.engine import Engine

# Of an engine: the pass in which each of its steps runs; None for one without a token.
Passes = list[int | None]
LABEL = ("context_requests", "context_tokens", "generation_requests", "generation_tokens")


def passes_of(served: Engine, begins: int, pauses: set[int]) -> Passes:
    """Return the pass of each step: from ``begins`` on, without those in ``pauses``."""
    found: Passes = []
    at = begins
    for fed in served.fed:
        while at in pauses:
            at += 1
        found.append(at if fed else None)
        at += bool(fed)
    return found


def frames(
    engines: list[Engine], passes: list[Passes], tensor: int = 1
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return launches and steps as a trace tells them; ``tensor`` processes an engine."""
    last = max((p for each in passes for p in each if p is not None), default=0) + 2
    launches, steps = [], []
    for engine, (served, at) in enumerate(zip(engines, passes, strict=True)):
        for rank in range(engine * tensor, (engine + 1) * tensor):
            pid = {"global_pid": 10_000 + rank, "process_id": 100 + rank}
            steps += [{**pid, **label} for label in served.labels]
            step_of = {p: step for step, p in enumerate(at) if p is not None}
            launches += [
                {**pid, "rank": rank, "step": step_of.get(number), "pass": number}
                for number in range(last)
            ]
    schema = dict.fromkeys(("global_pid", "process_id", "rank", "step", "pass"), pl.Int64)
    named = dict.fromkeys(("global_pid", "process_id", "step", *LABEL), pl.Int64)
    return pl.DataFrame(launches, schema=schema), pl.DataFrame(steps, schema=named)


def record(engines: list[Engine], **more: Any) -> RunRecord:
    lengths = [
        (p, o, rank)
        for rank, served in enumerate(engines)
        for p, o in zip(served.prompts, served.outputs, strict=True)
    ]
    return RunRecord(
        source="run.json",
        engine="0.26.0",
        prompt_tokens=tuple(p for p, _, _ in lengths),
        output_tokens=tuple(o for _, o, _ in lengths),
        max_running=4,
        max_step_tokens=12,
        expert_parallel=True,
        data_parallel=len(engines),
        map_before=None,
        map_after=None,
        request_ranks=tuple(rank for _, _, rank in lengths),
        **more,
    )


def fed(slices: pl.DataFrame) -> list[tuple[int, int, int]]:
    """Return (pass, request of the run, token), in order."""
    columns = ["step", "request", "first", "tokens"]
    return sorted(
        (step, request, first + i)
        for step, request, first, tokens in slices.select(columns).rows()
        for i in range(tokens)
    )


def really(engines: list[Engine], passes: list[Passes]) -> list[tuple[int, int, int]]:
    starts = [sum(len(one.prompts) for one in engines[:n]) for n in range(len(engines))]
    return sorted(
        (place, starts[engine] + request, token)
        for engine, (served, at) in enumerate(zip(engines, passes, strict=True))
        for place, step in zip(at, served.fed, strict=True)
        for request, token in step
        if place is not None
    )


def drawn(seed: int, count: int) -> tuple[list[Engine], list[Passes]]:
    """Draw engines; lengths come from so few that engines are often alike."""
    random = Random(seed)
    engines, passes = [], []
    for _ in range(count):
        requests = random.randint(1, 3)
        prompts = [random.choice([4, 9]) for _ in range(requests)]
        outputs = [random.choice([2, 4]) for _ in range(requests)]
        engines.append(Engine(prompts, outputs, 4, 12, [0] * requests).run())
        pauses = set(random.sample(range(6), random.choice([0, 0, 1])))
        passes.append(passes_of(engines[-1], random.choice([0, 0, 1]), pauses))
    return engines, passes


def ways(engines: list[Engine], passes: list[Passes]) -> set[tuple[Any, ...]]:
    """Try every order of engines by hand; one is told from another by steps and passes alone."""
    tables = [
        tuple((place, *(label[name] for name in LABEL))
              for place, label in zip(at, served.labels, strict=True))
        for served, at in zip(engines, passes, strict=True)
    ]  # fmt: skip
    found = set()
    for order in permutations(range(len(engines))):
        try:
            for rank, place in enumerate(order):
                replay(engines[place].labels, replace(record([engines[rank]]), data_parallel=1))
        except RoutingError:
            continue
        found.add(tuple(tables[place] for place in order))
    return found


@settings(max_examples=80)
@given(seed=st.integers(0, 100_000), count=st.integers(2, 4), tensor=st.integers(1, 2))
def test_tokens_meet_as_they_did_wherever_lengths_tell(seed: int, count: int, tensor: int) -> None:
    engines, passes = drawn(seed, count)
    found = replay_engines(*frames(engines, passes, tensor), record(engines))
    assert found.left == 0
    assert len(found.done) == count * tensor
    assert found.by == ("steps" if len(ways(engines, passes)) == 1 else "order")
    # In the order of GPUs is how they ran here.
    assert fed(found.slices) == really(engines, passes)


@settings(max_examples=40)
@given(seed=st.integers(0, 100_000), count=st.integers(2, 4))
def test_engines_on_other_gpus_are_found(seed: int, count: int) -> None:
    engines, passes = drawn(seed, count)
    order = list(range(count))
    Random(seed).shuffle(order)
    # Data-parallel rank r runs on GPU order[r].
    placed = [order.index(gpu) for gpu in range(count)]
    there = frames([engines[rank] for rank in placed], [passes[rank] for rank in placed])
    found = replay_engines(*there, record(engines))
    if len(ways(engines, passes)) == 1:
        assert (found.by, fed(found.slices)) == ("steps", really(engines, passes))
    workers = {100 + gpu: Worker(rank, None) for rank, gpu in enumerate(order)}
    told = replay_engines(*there, record(engines, workers=workers))
    assert (told.by, fed(told.slices)) == ("pid", really(engines, passes))


def late() -> tuple[list[Engine], list[Passes]]:
    """Two engines with the same requests, the second a pass behind the first."""
    engines = [Engine([4, 4], [3, 3], 4, 12, [0, 0]).run() for _ in range(2)]
    return engines, [passes_of(engines[0], 0, set()), passes_of(engines[1], 1, set())]


def test_what_lengths_do_not_tell_process_ids_do() -> None:
    engines, passes = late()
    there = frames(engines, passes)
    assert replay_engines(*there, record(engines)).by == "order"
    workers = {100: Worker(1, 1), 101: Worker(0, 0)}
    told = replay_engines(*there, record(engines, workers=workers))
    assert fed(told.slices) == really(engines, passes[::-1])
    # Processes of which the trace knows nothing tell nothing.
    others = {1: Worker(1, 1), 2: Worker(0, 0)}
    unknown = replay_engines(*there, record(engines, workers=others))
    assert (unknown.by, unknown.is_refuted, told.is_refuted) == ("order", False, False)


@pytest.mark.parametrize("ranks", [{100: 0, 101: 0}, {100: 0}, {100: 0, 101: 2}])
def test_processes_that_contradict_the_run_are_passed_over_and_told(ranks: dict[int, int]) -> None:
    engines, passes = late()
    workers = {pid: Worker(rank, None) for pid, rank in ranks.items()}
    found = replay_engines(*frames(engines, passes), record(engines, workers=workers))
    assert (found.by, found.is_refuted) == ("order", True)
    assert fed(found.slices) == really(engines, passes)


def test_engines_that_nothing_tells_apart_are_taken_in_the_order_of_gpus() -> None:
    """The first and the third have the same steps, and all could have served all requests."""
    (first, second), (one, other) = late()
    engines, passes = [first, second, first], [one, other, one]
    found = replay_engines(*frames(engines, passes, 2), record(engines))
    assert (found.by, fed(found.slices)) == ("order", really(engines, passes))


def test_an_engine_without_requests_only_keeps_step() -> None:
    served = Engine([4], [3], 4, 12, [0]).run()
    idle = Engine([], [], 4, 12, [])
    found = replay_engines(*frames([idle, served], [[], passes_of(served, 0, set())]),
                           record([idle, served]))  # fmt: skip
    assert found.by == "steps"
    assert found.slices["engine"].unique().to_list() == [1]


def test_a_trace_that_ends_early_says_what_is_left() -> None:
    engines, passes = late()
    launches, steps = frames(engines, passes)
    cut = steps.filter((pl.col("process_id") == 100) | (pl.col("step") < 2))
    known = pl.col("step").is_null() | (pl.col("process_id") == 100) | (pl.col("step") < 2)
    found = replay_engines(launches.filter(known), cut, record(engines))
    assert found.left == 2
    assert found.done == {10_000}


def test_runs_that_do_not_fit_are_refused() -> None:
    engines, passes = late()
    there = frames(engines, passes)
    whole = record(engines)
    with pytest.raises(MissingDataError, match="which data-parallel rank served each"):
        replay_engines(*there, replace(whole, request_ranks=None))
    with pytest.raises(RoutingError, match="rank 7, of 2"):
        replay_engines(*there, replace(whole, request_ranks=(0, 0, 1, 7)))
    with pytest.raises(RoutingError, match="do not divide the"):
        replay_engines(*there, replace(whole, data_parallel=3))
    with pytest.raises(RoutingError, match="data-parallel rank 1: step 0 says"):
        replay_engines(*there, replace(whole, prompt_tokens=(4, 4, 9, 9)))
    other = Engine([9], [2], 4, 12, [0]).run()
    mixed = frames([engines[0], other], [passes[0], passes_of(other, 0, set())])
    workers = {100: Worker(1, None), 101: Worker(0, None)}
    with pytest.raises(RoutingError, match="data-parallel rank 0: step 0 says"):
        replay_engines(*mixed, record([engines[0], other], workers=workers))
    # Both ranks' requests fit the first engine alone.
    with pytest.raises(RoutingError, match="data-parallel rank 1"):
        replay_engines(*mixed, whole)
    launches, steps = there
    torn = launches.with_columns(
        pl.when(pl.col("pass") == 1).then(0).otherwise("step").alias("step")
    )
    with pytest.raises(RoutingError, match="ran in passes 0 to 1"):
        replay_engines(torn, steps, whole)
    beside = passes_of(other, 0, set())
    uneven = frames([*[engines[0]] * 3, other], [*[passes[0]] * 3, beside])
    with pytest.raises(RoutingError, match="not groups of 2"):
        replay_engines(*uneven, whole)
    with pytest.raises(RoutingError, match="do not divide the"):
        replay_engines(*frames([*engines, other], [*passes, beside]), whole)
