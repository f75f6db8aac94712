"""What the scripts beside vLLM work out by themselves."""

from __future__ import annotations

import argparse
import math
import os
import sys
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from statistics import fmean, pstdev
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nsysmoe.capture.node import nsysmoe_workload as workload
from nsysmoe.capture.node.nsysmoe_extension import NsysmoeExtension
from nsysmoe.capture.node.nsysmoe_workers import is_placed_next, rearrangements

INTERVAL, STEPS = 96, 10


def states(*steps: int) -> list[dict[str, Any] | None]:
    return [{"step": step, "interval": INTERVAL} for step in steps]


@pytest.mark.parametrize(
    ("rearrange", "seen", "is_placed"),
    [
        # None yet, 92 after the control: the first would come inside.
        ("before", states(72, 82), False),
        ("inside", states(72, 82), False),
        # One was before; control 30 to 40, measured 40 to 50.
        ("before", states(90, 10, 20, 30), True),
        # Control 80 to 90, measured 90 to 100.
        ("before", states(90, 70, 80), False),
        ("inside", states(90, 70, 80), True),
        ("inside", states(90, 10, 20), False),
        # It would lie within a step or two of the edge.
        ("inside", states(90, 65, 75), False),
        ("any", states(62, 72), True),
        ("before", [None, None], True),
    ],
)
def test_where_the_next_rearrangement_falls(
    rearrange: str, seen: list[dict[str, Any] | None], is_placed: bool
) -> None:
    assert is_placed_next(seen, rearrange) is is_placed


def moving(step: int, *, is_moving: bool = True) -> dict[str, Any]:
    return {"step": step, "interval": INTERVAL, "is_async": True, "is_moving": is_moving}


def test_nothing_is_measured_while_experts_move() -> None:
    before, after = moving(80, is_moving=False), moving(10)
    assert not is_placed_next([before, after], "before")
    assert not is_placed_next([before, after, moving(20)], "inside")
    ended = moving(30, is_moving=False)
    assert is_placed_next([before, after, moving(20), ended], "before")
    # The next would begin in the control round, and go on into the measured one.
    late = [moving(78, is_moving=False), moving(88, is_moving=False)]
    assert not is_placed_next([before, after, *late], "before")


def test_a_rearrangement_counts_though_the_counter_ran_on() -> None:
    looks: list[dict[str, Any] | None] = [
        {**moving(72, is_moving=False), "models": {"m": [0, 1]}},
        {**moving(200), "models": {"m": [0, 1]}},
        {**moving(210), "models": {"m": [1, 0]}},
        {**moving(220, is_moving=False), "models": {"m": [1, 0]}},
    ]
    assert rearrangements(looks) == {"before": 1, "inside": 0}
    # It began and ended between two looks.
    assert rearrangements([looks[0], looks[3]]) == {"before": 0, "inside": 1}


def test_quantiles_interpolate() -> None:
    rows = [
        {"output_tokens": 2, "prompt_tokens": 3, "ttft_s": ttft, "tpot_s": None, "e2e_s": ttft}
        for ttft in (0.4, 0.1, 0.3, 0.2)
    ]
    found = workload.summary_of(2.0, rows)
    assert found["ttft_p50_s"] == pytest.approx(0.25)
    assert found["ttft_p99_s"] == pytest.approx(0.397)
    assert found["tpot_p50_s"] is None
    assert (found["output_tok_per_s"], found["total_tok_per_s"]) == (4.0, 10.0)


def test_random_prompts_are_the_same_each_time() -> None:
    parser = argparse.ArgumentParser()
    workload.add_options(parser)
    options = parser.parse_args(["--output", "x", "--num-prompts", "3", "--vocabulary", "20"])
    first, second = workload.requests_of(options), workload.requests_of(options)
    assert first == second
    assert workload.digest_of(first) == workload.digest_of(second)
    assert {token for one in first for token in one["prompt_token_ids"]} <= set(range(10, 20))


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        workload.write_json(tmp_path / "run.json", {"x": object()})
    assert not (tmp_path / "run.json").exists()


def test_arrivals_are_a_poisson_process() -> None:
    times = workload.arrivals(50.0, 20_001, seed=3)
    gaps = [after - before for before, after in pairwise(times)]
    assert times[0] == 0
    # Exponential gaps: their deviation is their mean, here within four standard errors.
    assert fmean(gaps) == pytest.approx(0.02, rel=4 / 20_000**0.5)
    assert pstdev(gaps) == pytest.approx(0.02, rel=8 / 20_000**0.5)
    assert workload.arrivals(50.0, 20_001, seed=3) == times
    assert workload.arrivals(50.0, 3, seed=4) != times[:3]
    assert workload.arrivals(math.inf, 3, seed=3) == [0, 0, 0]
    assert workload.arrivals(1.0, 0, seed=3) == []


def test_rearrangements_inside_are_those_of_all_measured_rounds() -> None:
    seen = states(90, 10, 60, 20, 50, 5)
    assert rearrangements(seen) == {"before": 2, "inside": 1}
    assert rearrangements(seen, 3) == {"before": 1, "inside": 2}


@pytest.mark.parametrize("most", [1, 7, 64, 1000, 4096, 8192])
def test_sizes_of_steps_meet_every_tile_and_both_specialisations(most: int) -> None:
    sizes = workload.step_sizes(most)
    assert sizes == sorted(set(sizes))
    assert sizes[0] >= 1
    assert sizes[-1] == most
    # Up to 2,048 tokens no product of tiles of 8 rows is left out, full or not.
    tiles = set(range(8, min(most, 2048) + 1, 8))
    assert tiles <= set(sizes)
    assert {size - 1 for size in tiles} <= set(sizes)
    # vLLM's tiles of experts change just after powers of two.
    assert {2**power + 1 for power in range(1, 13) if 2**power < most} <= set(sizes)
    assert len(sizes) <= 1000


def prompts(*lengths: int) -> list[dict[str, Any]]:
    return [{"prompt_token_ids": [1] * length} for length in lengths]


@settings(max_examples=60)
@given(
    length=st.integers(1, 700),
    count=st.integers(1, 40),
    rows=st.integers(1, 40),
    tokens=st.integers(1, 9000),
)
def test_what_can_occur_is_warmed(length: int, count: int, rows: int, tokens: int) -> None:
    warmed = workload.sizes_to_warm(prompts(*[length] * count), tokens, rows)
    at_once = min(count, rows)
    every = workload.step_sizes(min(tokens, count * (length + 1)))
    if at_once * length > tokens:
        assert warmed == every, "prompts are cut where they do not fit"
        return
    for whole in range(at_once + 1):
        for single in range(at_once - whole + 1):
            if size := whole * length + single:
                assert min(one for one in every if one >= size) in warmed
    assert set(warmed) <= set(every)


def test_what_cannot_occur_is_not_warmed() -> None:
    fixed = workload.sizes_to_warm(prompts(*[256] * 32), 8192, 32)
    every = workload.step_sizes(8192)
    assert 5 * len(fixed) < len(every)
    assert not {size for size in fixed if 300 < size < 500}
    # Of several lengths, or texts, any sum can occur.
    assert workload.sizes_to_warm(prompts(5000, 5001), 8192, 32) == every
    assert workload.sizes_to_warm([{"prompt": "a"}], 8192, 32) == every


class Runner:
    """Plays vLLM's model runner: notes the steps and the logits that it is asked for."""

    def __init__(self, requests: int) -> None:
        self.steps: list[int] = []
        self.logits: list[int] = []
        self._requests = requests

    def _dummy_run(self, tokens: int, *, skip_eplb: bool) -> tuple[list[int], list[int]]:
        assert skip_eplb
        self.steps.append(tokens)
        return [0] * tokens, [0] * min(tokens, self._requests)

    def get_model(self) -> Any:
        return SimpleNamespace(compute_logits=lambda rows: self.logits.append(len(rows)))


def test_every_size_runs_once_before_anything_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = SimpleNamespace(
        inference_mode=nullcontext, cuda=SimpleNamespace(synchronize=lambda: None)
    )
    monkeypatch.setitem(sys.modules, "torch", torch)
    extension = NsysmoeExtension()
    extension.model_runner = Runner(requests=3)
    assert extension.nsysmoe_warm_steps("8,15,24", "4") == 3
    assert extension.model_runner.steps == [8, 15, 24]
    assert extension.model_runner.logits == [1, 2, 3]


def test_a_version_without_a_run_of_its_own_warms_by_rounds_alone() -> None:
    extension = NsysmoeExtension()
    extension.model_runner = SimpleNamespace()
    assert extension.nsysmoe_warm_steps("8,15", "4") == 0


def test_a_process_says_which_rank_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    extension = NsysmoeExtension()
    # Before vLLM has groups of ranks, or without vLLM.
    told = {"pid": os.getpid(), "data_parallel_rank": 0, "expert_parallel_rank": None}
    assert extension.nsysmoe_worker() == told
    state = ModuleType("vllm.distributed.parallel_state")
    state.get_ep_group = lambda: SimpleNamespace(rank_in_group=5)  # type: ignore[attr-defined]
    for name in ("vllm", "vllm.distributed"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "vllm.distributed.parallel_state", state)
    extension.parallel_config = SimpleNamespace(data_parallel_rank=2)
    told |= {"data_parallel_rank": 2, "expert_parallel_rank": 5}
    assert extension.nsysmoe_worker() == told
