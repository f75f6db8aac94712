"""A kernel's name is taken apart into function, scope and template."""

from __future__ import annotations

import time

import pytest

from nsysmoe.classes import Function, default_class_map, parse_function
from nsysmoe.classes.function import parse_reduction


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("fused_moe_kernel", Function("fused_moe_kernel")),
        ("fused_moe_kernel_0d1d2d3c4de5", Function("fused_moe_kernel")),
        ("triton_poi_fused_2", Function("triton_poi_fused_2")),
        ("step_01", Function("step_01")),
        ("lbm_0123", Function("lbm_0123")),
        (
            "ncclDevKernel_SendRecv(ncclDevKernelArgsStorage<(unsigned long)4096>)",
            Function("ncclDevKernel_SendRecv"),
        ),
        (
            "void vllm::moe::topkGating<(int)8, (int)4, __nv_bfloat16>(const T7 *, const bool *)",
            Function("topkGating", "vllm::moe", "(int)8, (int)4, __nv_bfloat16"),
        ),
        (
            "void at::native::<unnamed>::indexSelectSmallIndex<long, (int)-2>(Info<T1, T3>, int)",
            Function("indexSelectSmallIndex", "at::native::<unnamed>", "long, (int)-2"),
        ),
        (
            "void at::native::(anonymous namespace)::fill<long>(long*)",
            Function("fill", "at::native::<unnamed>", "long"),
        ),
        (
            # As nsys prints it: the brackets of the return type do not balance.
            "std::enable_if<T2>(int)0&&vllm::_typeConvert<T1>::exists, void>::type "
            "vllm::fused_add_rms_norm_kernel<c10::BFloat16, (int)8, (bool)1>(T1 *, long, float)",
            Function("fused_add_rms_norm_kernel", "vllm", "c10::BFloat16, (int)8, (bool)1"),
        ),
        (
            "void Outer<int, (bool)1>::run<A<B>>(A<B>)",
            Function("run", "Outer", "A<B>"),
        ),
        ("void f<&g<int>, (a->b)>(int) [clone .kd]", Function("f", "", "&g<int>, (a->b)")),
        ("_ZN4vllm3moe10topkGatingILi8EEEvPKT_", Function("topkGating", "vllm::moe")),
        ("_Z16fused_moe_kernelPf", Function("fused_moe_kernel")),
        ("?", Function("?")),
        ("", Function("")),
        (")))", Function(")))")),
        ("<<<(", Function("<<<(")),
    ],
)
def test_takes_names_apart(name: str, expected: Function) -> None:
    assert parse_function(name) == expected


@pytest.mark.parametrize(
    "name",
    [
        "k_0" + "1" * 5000 + "x",
        "a" * 60_000 + "-",
        "a::" * 20_000 + "f",
        "<" * 60_000,
        "f(" * 30_000 + ")" * 30_000,
        "x" * 1_000_000,
        "a" + " " * 60_000 + "b",
        "a" + "[clone " * 9_000,
    ],
)
def test_hostile_names_cost_no_time(name: str) -> None:
    """Each would take minutes with a pattern that tries every way to match."""
    start = time.process_time()
    default_class_map().classify(name)
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ("ncclDevKernel_AllReduce_Sum_bf16_RING_LL", ("sum", "bf16")),
        ("ncclDevKernel_AllReduce_Sum_u32_TREE_LL", ("sum", "u32")),
        ("ncclKernel_AllReduce_RING_LL_Sum_float", ("sum", "f32")),
        ("ncclKernel_AllReduce_RING_LL_Sum___nv_bfloat16", ("sum", "bf16")),
        ("ncclKernel_AllReduce_RING_LL_Sum_int32_t", ("sum", "u32")),
        ("ncclAllReduceRingLLKernel_sum_f16", ("sum", "f16")),
        ("ncclDevKernel_ReduceScatter_Max_f32_RING_LL", ("max", "f32")),
        ("ncclDevKernel_AllGather_RING_LL", (None, None)),
    ],
)
def test_reads_reduction_and_type(function: str, expected: tuple[str | None, str | None]) -> None:
    assert parse_reduction(function) == expected
