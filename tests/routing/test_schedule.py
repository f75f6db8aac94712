"""Which tokens ran in which step, against an engine written for the purpose."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nsysmoe.errors import RoutingError
from nsysmoe.routing import RunRecord, replay
from tests.routing.engine import Engine, engine


def record(served: Engine) -> RunRecord:
    return RunRecord(
        source="run.json",
        engine="0.26.0",
        prompt_tokens=tuple(served.prompts),
        output_tokens=tuple(served.outputs),
        max_running=served.max_running,
        max_step_tokens=served.max_tokens,
        expert_parallel=True,
        data_parallel=1,
        map_before=None,
        map_after=None,
    )


def fed_by(served: Engine) -> list[list[tuple[int, int]]]:
    slices, left = replay(served.labels, record(served))
    assert left == 0
    steps: list[list[tuple[int, int]]] = [[] for _ in served.labels]
    for step, request, first, tokens in slices.rows():
        steps[step] += [(request, first + i) for i in range(tokens)]
    return steps


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    requests=st.integers(1, 12),
    max_running=st.integers(1, 6),
    budget=st.integers(6, 90),
    late=st.integers(0, 4),
)
def test_every_token_runs_in_the_step_that_the_engine_ran_it_in(
    seed: int, requests: int, max_running: int, budget: int, late: int
) -> None:
    served = engine(seed, requests, max_running, budget, late)
    assert [sorted(step) for step in fed_by(served)] == [sorted(step) for step in served.fed]


def test_prompts_are_cut_where_the_budget_ends() -> None:
    served = Engine([5, 10], [2, 2], 2, 8, [0, 0]).run()
    assert fed_by(served)[0] == [*((0, i) for i in range(5)), *((1, i) for i in range(3))]
    # The second prompt is still context, the first generates.
    assert fed_by(served)[1] == [(0, 5), *((1, i) for i in range(3, 10))]


@pytest.mark.parametrize("key", ["context_requests", "context_tokens", "generation_requests",
                                 "generation_tokens"])  # fmt: skip
@pytest.mark.parametrize("by", [-1, 1])
def test_a_label_that_says_something_else_is_refused(key: str, by: int) -> None:
    served = engine(3, 8, 4, 60)
    busy = [n for n, label in enumerate(served.labels) if label[key] + by >= 0 and label[key]]
    for number in busy:
        labels = [dict(label) for label in served.labels]
        labels[number][key] += by
        with pytest.raises(RoutingError, match=r"step \d+ says|never ran") as caught:
            replay(labels, record(served))
        assert "\n" not in str(caught.value)


def test_the_mismatch_names_step_expected_and_found() -> None:
    served = engine(3, 8, 4, 60)
    labels = [dict(label) for label in served.labels]
    labels[2]["generation_requests"] = 77
    with pytest.raises(RoutingError, match=r"step 2 says 77 generation requests where first come"):
        replay(labels, record(served))


def test_other_lengths_are_refused() -> None:
    served = engine(5, 8, 4, 60)
    longer = replace(record(served), output_tokens=(*served.outputs[:-1], served.outputs[-1] + 1))
    with pytest.raises(RoutingError):
        replay(served.labels, longer)


def test_a_run_of_more_requests_is_refused_once_the_engine_is_idle() -> None:
    served = engine(5, 8, 4, 60)
    more = replace(
        record(served),
        prompt_tokens=(*served.prompts, 9),
        output_tokens=(*served.outputs, 9),
        max_step_tokens=None,
        max_running=None,
    )
    with pytest.raises(RoutingError, match="is idle, but 17 of"):
        replay(served.labels, more)


def test_a_trace_that_ends_amid_work_says_how_much_is_left() -> None:
    served = engine(5, 8, 4, 60)
    slices, left = replay(served.labels[:4], record(served))
    ran = sum(len(step) for step in served.fed[:4])
    assert int(slices["tokens"].sum()) == ran
    assert left == sum(len(step) for step in served.fed[4:])


def test_limits_of_the_scheduler_are_checked() -> None:
    served = engine(5, 8, 4, 60)
    with pytest.raises(RoutingError, match="at most"):
        replay(served.labels, replace(record(served), max_running=1))
    with pytest.raises(RoutingError, match=r"at most|where a prompt is cut"):
        replay(served.labels, replace(record(served), max_step_tokens=10))
    cut = Engine([50, 50], [2, 2], 2, 60, [0, 0]).run()
    with pytest.raises(RoutingError, match="90 where a prompt is cut"):
        replay(cut.labels, replace(record(cut), max_step_tokens=90))
