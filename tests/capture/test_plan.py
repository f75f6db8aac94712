"""From a spec to argv and environment, for each version and mode: pure, and pinned by snapshots."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace

import pytest

from nsysmoe.capture.engine import check, options
from nsysmoe.capture.plan import NODE, plan, script
from nsysmoe.capture.spec import (
    OFF,
    ON,
    Arm,
    Balancing,
    Engine,
    Layout,
    Load,
    Rearrange,
    Spec,
    Workload,
    layout_of,
)
from nsysmoe.capture.steps import Steps, plan_rounds, steps_of
from nsysmoe.errors import CaptureError
from tests.capture.specs import PAPER, SERVER, SNAPSHOTS, TENSOR, VERSIONS, plans


@pytest.mark.parametrize("version", VERSIONS)
def test_plans_are_those_of_the_snapshots(version: str) -> None:
    found = plans(version)
    assert {path.name for path in SNAPSHOTS.glob(f"{version}-*")} == set(found)
    for name, text in found.items():
        assert text == (SNAPSHOTS / name).read_text(encoding="utf-8")


def test_planning_is_pure() -> None:
    assert plan(PAPER, "runs") == plan(PAPER, "runs")
    assert hash(PAPER) == hash(replace(PAPER))


def test_arms_alternate() -> None:
    names = [run.name for run in plan(replace(TENSOR, runs=2), "runs")]
    assert names == ["off-run-1", "on-run-1", "off-run-2", "on-run-2"]


@pytest.mark.parametrize("spec", [PAPER, TENSOR, SERVER])
def test_options_of_eplb_are_in_the_on_arm_alone(spec: Spec) -> None:
    off, on = plan(spec, "runs")
    words = [word for word in off.engine.argv if "eplb" in word and not word.startswith("--record")]
    assert words == []
    assert any("eplb_config" in word or "--eplb-config" in word for word in on.engine.argv)
    # Nothing else differs but the name of the run.
    assert len(set(off.engine.environment) ^ set(on.engine.environment)) == 0
    assert options(spec, ON).items() >= options(spec, OFF).items()


@pytest.mark.parametrize(
    ("expert", "tensor", "data", "layout"),
    [
        (4, None, None, Layout(1, 4)),
        (4, 4, None, Layout(4, 1)),
        (4, 2, None, Layout(2, 2)),
        (4, None, 2, Layout(2, 2)),
        (None, 2, None, Layout(2, 1)),
        (None, None, 2, Layout(1, 2)),
        (8, 2, 4, Layout(2, 4)),
    ],
)
def test_expert_parallel_alone_is_the_papers_layout(
    expert: int | None, tensor: int | None, data: int | None, layout: Layout
) -> None:
    assert layout_of(expert, tensor, data) == layout


@pytest.mark.parametrize(
    ("expert", "tensor", "data"), [(4, 3, None), (4, 2, 4), (None, None, None), (2, None, 4)]
)
def test_layouts_that_contradict_themselves_are_refused(
    expert: int | None, tensor: int | None, data: int | None
) -> None:
    with pytest.raises(CaptureError, match="expert"):
        layout_of(expert, tensor, data)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (replace(TENSOR, vllm="0.9.2"), r"older than 0\.10\.2"),
        (replace(TENSOR, vllm="new"), r"no version of vLLM"),
        (replace(SERVER, vllm="0.12.0"), r"0\.12\.0 has no --mode server .*0\.13 has"),
        (replace(TENSOR, vllm="0.13.0", routed_experts=True), r"--routed-experts, 0\.15\.1 has"),
        (
            replace(TENSOR, vllm="0.13.0", balancing=Balancing(is_async=True)),
            r"use_async, 0\.15\.1",
        ),
        (
            replace(TENSOR, vllm="0.15.1", balancing=Balancing(communicator="pynccl")),
            r"communicator, 0\.20\.2 has",
        ),
        (
            replace(TENSOR, balancing=Balancing(communicator="torch_nccl")),
            r"asynchronously through torch_nccl",
        ),
        (replace(TENSOR, layout=Layout(1, 1)), r"more than one GPU"),
        (replace(PAPER, workload=replace(PAPER.workload, count=3)), r"without any"),
        (replace(SERVER, routed_experts=True), r"needs --mode offline"),
    ],
)
def test_what_a_version_cannot_honour_is_refused(spec: Spec, said: str) -> None:
    with pytest.raises(CaptureError, match=said):
        check(spec)


def test_an_arm_without_eplb_needs_none_of_its_options() -> None:
    check(replace(TENSOR, layout=Layout(1, 1), arms=(OFF,)))


def test_multicast_is_off_unless_allowed() -> None:
    (off, *_), (allowed, *_) = plan(TENSOR, "runs"), plan(replace(TENSOR, multicast=True), "runs")
    assert dict(off.engine.environment)["NCCL_NVLS_ENABLE"] == "0"
    assert "NCCL_NVLS_ENABLE" not in dict(allowed.engine.environment)


@pytest.mark.parametrize(
    ("spec", "digest"),
    [(PAPER, "f3df19da4ccfa134"), (TENSOR, "ff8848a37a32892f"), (SERVER, "9581904e1237fbec")],
)
def test_captures_of_earlier_versions_go_on(spec: Spec, digest: str) -> None:
    assert spec.digest() == digest
    assert replace(spec, load=Load(rate=4.0)).digest() != digest


def test_an_arm_says_only_what_differs() -> None:
    arm = Arm(
        "small",
        is_expert_parallel=False,
        max_sequences=4,
        max_step_tokens=512,
        more=(("async_scheduling", "true"),),
        workload=Workload(count=3, output_tokens=5),
        labels=(("routing", "mine"),),
    )
    spec = replace(TENSOR, arms=(ON, arm), rearrange="any", runs=1)
    on, small = plan(spec, "runs")
    (given,) = [word for word in small.engine.argv if word.startswith("--engine=")]
    options_ = json.loads(given[9:])
    assert options_["enable_expert_parallel"] is False
    assert (options_["max_num_seqs"], options_["max_num_batched_tokens"]) == (4, 512)
    assert options_["async_scheduling"] is True
    assert "enable_eplb" not in options_
    assert "--num-prompts=3" in small.engine.argv
    (record,) = [word for word in small.engine.argv if word.startswith("--record=")]
    kept = json.loads(record[9:])
    assert (kept["routing"], kept["ep"], kept["async_scheduling"]) == ("mine", "off", True)
    # Nothing of it reaches the other.
    assert on == plan(replace(spec, arms=(ON,)), "runs")[0]


@pytest.mark.parametrize("name", ["", "a/b", "..", ".work", "failed", "a b", "x" * 200])
def test_names_of_arms_are_names_of_folders(name: str) -> None:
    with pytest.raises(CaptureError, match="cannot name an arm"):
        plan(replace(TENSOR, arms=(Arm(name),)), "runs")


def test_two_arms_of_one_name_are_refused() -> None:
    with pytest.raises(CaptureError, match="one name"):
        plan(replace(TENSOR, arms=(OFF, replace(OFF, max_sequences=2))), "runs")


def test_eplb_needs_expert_parallelism() -> None:
    with pytest.raises(CaptureError, match="nothing to balance"):
        check(replace(TENSOR, arms=(replace(ON, is_expert_parallel=False),)))


def test_sets_of_gpus_take_turns_and_ports_of_their_own() -> None:
    spec = replace(PAPER, gpu_sets=(("0", "1", "2", "3"), ("4", "5", "6", "7")), runs=2)
    shown = [dict(run.engine.environment)["CUDA_VISIBLE_DEVICES"] for run in plan(spec, "runs")]
    assert shown == ["0,1,2,3", "4,5,6,7"] * 2
    ports = {word for run in plan(spec, "r") for word in run.engine.argv if "--port=" in word}
    assert len(ports) == 2
    assert spec.digest() == PAPER.digest()


@pytest.mark.parametrize(
    ("sets", "said"),
    [((("0", "1"), ("1", "2")), "is in two"), ((("0",), ("1", "2")), "not the 2 GPUs")],
)
def test_sets_of_gpus_that_cannot_be(sets: tuple[tuple[str, ...], ...], said: str) -> None:
    with pytest.raises(CaptureError, match=said):
        check(replace(TENSOR, gpu_sets=sets))


def test_without_a_profiler_vllm_starts_as_it_would_by_itself() -> None:
    spec = replace(TENSOR, profile="none", load=Load(rounds=3, warms_steps=False))
    for run in plan(spec, "runs"):
        assert run.export is None
        assert run.engine.argv[0] == spec.python
        assert not any("profiler" in word for word in run.engine.argv)
        assert {"--measured-rounds=3", "--no-warm-steps"} <= set(run.engine.argv)
        # A forked worker need not import vLLM once more; only one that is traced must.
        variables = dict(run.engine.environment)
        assert "VLLM_WORKER_MULTIPROC_METHOD" not in variables
        assert "VLLM_NVTX_SCOPES_FOR_PROFILING" not in variables
    # A server that is not profiled needs no version that can be.
    check(replace(SERVER, vllm="0.12.0", profile="none"))
    with pytest.raises(CaptureError, match=r"no --load bench .*0\.13 has"):
        check(replace(SERVER, vllm="0.12.0", profile="none", load=Load("bench")))


def test_options_and_variables_of_the_user_come_last() -> None:
    spec = replace(
        TENSOR,
        environment=(("VLLM_NO_USAGE_STATS", "0"),),
        engine=Engine(more=(("seed", "7"), ("attention_config", '{"backend":"X"}'))),
    )
    (run, *_) = plan(spec, "runs")
    assert dict(run.engine.environment)["VLLM_NO_USAGE_STATS"] == "0"
    given = next(word for word in run.engine.argv if word.startswith("--engine="))
    assert json.loads(given[9:])["seed"] == 7
    assert json.loads(given[9:])["attention_config"] == {"backend": "X"}


def test_a_script_quotes_what_a_shell_would_read() -> None:
    text = script(replace(TENSOR, model="a b;$(c)"), "my runs")
    assert "$(c)" not in text.replace("'a b;$(c)'", "").replace('"a b;$(c)"', "")
    for line in text.splitlines():
        shlex.split(line, comments=True)


def test_a_saved_spec_holds_no_values_of_variables() -> None:
    spec = replace(TENSOR, environment=(("HF_TOKEN", "secret"),))
    assert "secret" not in json.dumps(spec.to_dict())
    assert spec.digest() != TENSOR.digest()


def test_more_runs_continue_a_capture() -> None:
    assert replace(TENSOR, runs=9).digest() == TENSOR.digest()
    assert replace(TENSOR, multicast=True).digest() != TENSOR.digest()


@pytest.mark.parametrize("interval", [256, 300, 1000, 3000])
@pytest.mark.parametrize("where", ["before", "inside", "any"])
def test_rounds_put_the_rearrangement_where_it_was_asked_for(
    interval: int, where: Rearrange
) -> None:
    spec = replace(
        TENSOR,
        workload=Workload(count=32, output_tokens=200),
        balancing=Balancing(interval=interval),
        rearrange=where,
    )
    rounds = plan_rounds(spec)
    assert rounds.unprofiled >= spec.workload.warm_rounds
    for warm, steps in (
        (rounds.warm_steps.low, rounds.steps.low),
        (rounds.warm_steps.high, rounds.steps.high),
    ):
        before, inside = _played(interval, warm, steps)
        if where == "any":
            assert rounds.unprofiled == spec.workload.warm_rounds
        else:
            assert before
            assert bool(inside) == (where == "inside")


def _played(interval: int, warm: int, steps: int) -> tuple[list[int], list[int]]:
    """Count step by step, as vLLM does; return the steps that rearranged, before and inside."""
    counter, events = interval - interval // 4, []
    for step in range(warm + steps):
        counter += 1
        if counter >= interval:
            counter = 0
            events.append(step)
    return [step for step in events if step < warm], [step for step in events if step >= warm]


def test_an_interval_shorter_than_a_round_cannot_spare_it() -> None:
    spec = replace(TENSOR, balancing=Balancing(interval=8))
    with pytest.raises(CaptureError, match=r"before it with --eplb-interval 8; choose another"):
        plan_rounds(spec)


def test_what_was_advised_can_be_planned() -> None:
    for interval in (72, 100, 1000, 3000, 4000):
        plan_rounds(replace(TENSOR, balancing=Balancing(interval=interval)))


def test_steps_of_a_batch() -> None:
    # 8 prompts of 64 tokens are one step of 8,192; then 15 tokens, one a step.
    assert steps_of(TENSOR, 8, 16) == Steps(16, 18)
    # Twice as many requests as may run at once: two waves.
    assert steps_of(TENSOR, 64, 16) == Steps(32, 34)


def test_scripts_ship_with_the_package() -> None:
    assert {path.name for path in NODE.glob("*.py")} == {
        "worker.py",
        "load.py",
        "serve.py",
        "nsysmoe_rounds.py",
        "nsysmoe_workers.py",
        "nsysmoe_bench.py",
        "nsysmoe_extension.py",
        "nsysmoe_workload.py",
        "nsysmoe_options.py",
    }
