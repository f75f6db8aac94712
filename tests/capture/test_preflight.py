"""What must hold before a capture starts, on facts that are written down here."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nsysmoe.capture.plan import NSYS_OPTIONS
from nsysmoe.capture.preflight import Facts, Gpu, judge
from nsysmoe.capture.spec import OFF, Balancing, Layout, Spec
from tests.capture.specs import SERVER, TENSOR

H100 = Gpu(0, "NVIDIA H100", 4 << 20, 80 << 30)
FINE = Facts(
    nsys="NVIDIA Nsight Systems version 2025.3.2",
    nsys_options=frozenset(NSYS_OPTIONS),
    vllm="0.26.0",
    gpus=(H100, replace(H100, index=1)),
    driver="580.1",
    free_bytes=100 << 30,
    port_is_free=None,
    model={"num_local_experts": 8, "architectures": ["MixtralForCausalLM"]},
)


def statuses(spec: Spec, facts: Facts) -> dict[str, str]:
    return {check.what: check.status for check in judge(spec, facts)}


def test_a_node_that_has_everything() -> None:
    assert set(statuses(TENSOR, FINE).values()) == {"ok"}


@pytest.mark.parametrize(
    ("facts", "what", "status"),
    [
        (replace(FINE, nsys=None), "nsys", "fail"),
        (replace(FINE, nsys_options=frozenset(NSYS_OPTIONS[1:])), "nsys", "fail"),
        (replace(FINE, vllm=None), "vLLM", "fail"),
        (replace(FINE, vllm="0.99.0"), "vLLM", "warn"),
        (replace(FINE, gpus=None), "GPUs", "fail"),
        (replace(FINE, gpus=(H100,)), "GPUs", "fail"),
        (replace(FINE, gpus=(H100, replace(H100, used_bytes=9 << 30))), "idle", "fail"),
        (replace(FINE, gpus=(H100, replace(H100, name="A100"))), "GPUs", "warn"),
        (replace(FINE, free_bytes=1 << 20), "disk", "fail"),
        (replace(FINE, free_bytes=3 << 29), "disk", "warn"),
        (replace(FINE, port_is_free=False), "port", "fail"),
        (replace(FINE, port_is_free=True), "port", "ok"),
        (replace(FINE, model=None), "experts", "warn"),
        (replace(FINE, model={"num_experts": 7}), "experts", "fail"),
        (replace(FINE, model={"num_experts": 2}), "experts", "warn"),
    ],
)
def test_what_is_missing_is_said(facts: Facts, what: str, status: str) -> None:
    assert statuses(TENSOR, facts)[what] == status


def test_redundant_experts_must_divide_and_the_fix_says_how_many() -> None:
    spec = replace(TENSOR, layout=Layout(4, 1), balancing=Balancing(redundant=2))
    (found,) = [check for check in judge(spec, FINE) if check.what == "experts"]
    assert found.status == "fail"
    assert "--redundant-experts 4" in found.fix


def test_one_expert_a_gpu_can_be_balanced_with_redundant_ones() -> None:
    facts = replace(FINE, model={"num_experts": 2})
    spec = replace(TENSOR, balancing=Balancing(redundant=2))
    assert statuses(spec, facts)["experts"] == "ok"


def test_an_architecture_whose_eplb_came_later() -> None:
    assert statuses(replace(TENSOR, vllm="0.10.2"), FINE)["EPLB"] == "fail"
    assert "EPLB" not in statuses(replace(TENSOR, vllm="0.11.0"), FINE)
    assert "EPLB" not in statuses(replace(TENSOR, vllm="0.10.2", arms=(OFF,)), FINE)


def test_allowed_multicast_and_a_foreign_nsys() -> None:
    assert statuses(replace(SERVER, multicast=True), FINE)["multicast"] == "warn"
    assert "nsys" not in statuses(replace(TENSOR, profile="outside"), replace(FINE, nsys=None))
