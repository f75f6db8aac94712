"""Steps of continuous batching: fitted, simulated, and loads of batches; beside plain Python."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import numpy as np
import pytest

from nsysmoe.metrics.routed_load.uniform_router import simulate as uniform
from nsysmoe.metrics.serving.batch_loads import busiest, drawn_loads, most_active
from nsysmoe.metrics.serving.batching import Requests, simulate
from nsysmoe.metrics.serving.step_time import Spans, fit, non_negative
from nsysmoe.placement.simple import contiguous

BASE, SEQUENCE, PROMPT = 0.02, 0.0005, 0.00002


@dataclass
class Sequence:
    """One request of the plain engine."""

    arrival: float
    prompt: int
    output: int
    read: int = 0
    times: list[float] = field(default_factory=list)


def plain_engine(sequences: list[Sequence], most: int, budget: int) -> int:
    """Serve token by token: the oracle; return the steps."""
    clock, steps = 0.0, 0
    waiting, running = sorted(sequences, key=lambda one: one.arrival), list[Sequence]()
    while waiting or running:
        if not running:
            clock = max(clock, waiting[0].arrival)
        generating = [one for one in running if one.times]
        left, read = max(1, budget - len(generating)), 0
        ended = []
        while read < left:
            reading = [one for one in running if one.read < one.prompt]
            if not reading:
                if not waiting or waiting[0].arrival > clock or len(running) >= most:
                    break
                running.append(waiting.pop(0))
                continue
            taken = min(reading[0].prompt - reading[0].read, left - read)
            reading[0].read += taken
            read += taken
            if reading[0].read == reading[0].prompt:
                ended.append(reading[0])
        clock += BASE + SEQUENCE * len(generating) + PROMPT * read
        steps += 1
        for one in (*generating, *ended):
            one.times.append(clock)
        running = [one for one in running if len(one.times) < one.output]
    return steps


def workload(count: int, rate: float, seed: int = 5) -> list[Sequence]:
    draw, clock, found = random.Random(seed), 0.0, []
    for _ in range(count):
        clock += draw.expovariate(rate)
        found.append(Sequence(clock, draw.randint(1, 900), draw.randint(1, 60)))
    return found


def requests_of(sequences: list[Sequence]) -> Requests:
    return Requests(
        np.array([one.arrival for one in sequences]),
        np.array([one.prompt for one in sequences]),
        np.array([one.output for one in sequences]),
    )


def cost(sequences: int, prompt_tokens: int) -> float:
    return BASE + SEQUENCE * sequences + PROMPT * prompt_tokens


@pytest.mark.parametrize(("most", "budget", "rate"), [
    (256, 8192, 5.0), (8, 8192, 20.0), (64, 128, 20.0), (1, 64, 3.0), (4, 2, 50.0),
])  # fmt: skip
def test_the_simulation_is_the_plain_engines(most: int, budget: int, rate: float) -> None:
    sequences = workload(120, rate)
    steps = plain_engine(sequences, most, budget)
    found = simulate(requests_of(sequences), cost, most, budget)
    assert found.step_s.size == steps
    first = [one.times[0] - one.arrival for one in sequences]
    last = [one.times[-1] - one.arrival for one in sequences]
    assert found.first_s == pytest.approx(np.array(first))
    assert found.last_s == pytest.approx(np.array(last))
    assert found.most_sequences <= most


def test_costs_are_found_again_from_what_was_served() -> None:
    sequences = workload(600, 12.0)
    plain_engine(sequences, 256, 8192)
    found = fit(Spans(
        np.array([one.times[0] for one in sequences]),
        np.array([one.times[-1] for one in sequences]),
        np.array([float(one.prompt) for one in sequences]),
        np.array([float(one.output) for one in sequences]),
    ))  # fmt: skip
    assert found is not None
    assert found.is_separable
    assert found.base == pytest.approx(BASE, rel=0.05)
    assert found.per_sequence == pytest.approx(SEQUENCE, rel=0.15)
    assert found.per_prompt_token == pytest.approx(PROMPT, rel=0.15)
    assert found.error_ratio < 0.03


def test_one_batch_size_tells_base_and_sequence_not_apart() -> None:
    count = 40
    ones = np.ones(count)
    found = fit(Spans(ones, ones * 3.0, ones * 10, ones * 11))
    assert found is not None
    assert not found.is_separable
    assert found.of(count, 0) == pytest.approx(0.2)
    assert fit(Spans(ones[:5], ones[:5] * 2, ones[:5], ones[:5] * 9)) is None


def test_costs_are_not_negative() -> None:
    design = np.array([[1.0, 1.0], [1.0, 2.0], [1.0, 3.0]])
    assert non_negative(design, np.array([3.0, 2.0, 1.0])) == pytest.approx([2.0, 0.0])
    assert non_negative(design, np.array([-1.0, -1.0, -1.0])) == pytest.approx([0.0, 0.0])
    assert non_negative(design, np.array([3.0, 5.0, 7.0])) == pytest.approx([1.0, 2.0])


def test_batches_of_like_requests_are_the_uniform_routers() -> None:
    units = np.ones((50, 1, 16))
    loads = drawn_loads(units, 256, 2)
    assert loads.shape == (24, 1, 16)
    assert (loads.sum(axis=2) == 512).all()
    assert loads.max() <= 256, "no token chooses an expert twice"
    theirs = uniform(256, 2, 16).max(axis=1).mean()
    assert loads[:, 0].max(axis=1).mean() == pytest.approx(theirs, rel=0.05)


def test_what_a_request_never_chose_it_does_not_choose() -> None:
    units = np.zeros((4, 2, 8))
    units[:, :, :3] = [5.0, 4.0, 1.0]
    loads = drawn_loads(units, 32, 2)
    assert loads[:, :, 3:].sum() == 0
    # Four devices of two experts: the first holds experts 0 and 1.
    map_ = contiguous(2, 8, 8)
    assert busiest(loads, map_, 4) == pytest.approx(loads[:, :, :2].sum(axis=(1, 2)).mean())
    assert most_active(loads, map_, 4) == 4.0
