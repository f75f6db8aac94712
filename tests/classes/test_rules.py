"""Kernels are classified by their function, never by a piece of text."""

from __future__ import annotations

from pathlib import Path

import pytest

from nsysmoe.classes import default_class_map
from nsysmoe.errors import ClassMapError


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("fused_moe_kernel", ("moe_gemm", "triton", "experts")),
        ("fused_moe_kernel_gptq_awq", ("moe_gemm", "triton", "experts")),
        ("batched_triton_kernel", ("moe_gemm", "triton", "experts")),
        ("void marlin_moe_wna16::Marlin<half>(int)", ("moe_gemm", "marlin", "experts")),
        ("void marlin::Marlin<half>(int)", ("gemm", "marlin", "dense")),
        (
            "void deep_gemm::sm90_fp8_gemm_1d2d_impl<(deep_gemm::GemmType)1, (int)8>(T)",
            ("moe_gemm", "deepgemm", "experts"),
        ),
        (
            "void deep_gemm::sm90_fp8_gemm_1d2d_impl<(deep_gemm::GemmType)0, (int)8>(T)",
            ("gemm", "deepgemm", "dense"),
        ),
        (
            "void cutlass::device_kernel<cutlass::gemm::kernel::GemmUniversal<"
            "cutlass::gemm::GroupProblemShape<cute::tuple<int>>>>(T1::Params)",
            ("moe_gemm", "cutlass", "experts"),
        ),
        (
            "void cutlass::device_kernel<flash::FlashAttnFwdSm90<int>>(T1::Params)",
            ("attention", "flash_attention", "attend"),
        ),
        ("bmm_E4m3_E2m1E2m1_Fp32_t128x8x512u2_s5", ("moe_gemm", "trtllm_gen", "experts")),
        ("void vllm::moe::topkGatingSoftmax<int>(int)", ("moe_support", "vllm", "route")),
        ("void vllm::moe::moe_sum_kernel<int>(int)", ("moe_support", "vllm", "combine")),
        ("void vllm::moe::moe_align_block_size_kernel<int>(int)", ("moe_support", "vllm", "sort")),
        ("_eplb_map_and_record_i32_kernel", ("eplb", "vllm", "map_and_record")),
        ("void deep_ep::intranode::dispatch<int>(int)", ("moe_all2all", "deepep", "dispatch")),
        ("void uccl::internode_ll::combine<int>(int)", ("moe_all2all", "deepep", "combine")),
        ("void deep_gemm::sm90_bf16_gemm_impl<(int)8, (deep_gemm::GemmType)1>(T)",
         ("moe_gemm", "deepgemm", "experts")),
        ("void deep_gemm::sm90_bf16_gemm_impl<(int)8, (deep_gemm::GemmType)4>(T)",
         ("gemm", "deepgemm", "dense")),
        ("_matmul_ogs_NNT_bf16xbf16", ("moe_gemm", "triton", "experts")),
        ("_fwd_kernel_ep_gather", ("moe_support", "vllm", "combine")),
        ("void sglang::allreduce_LL_2node<half>(int)", ("collective", "mscclpp", "all_reduce")),
        ("ncclAllReduceRingLLKernel_sum_f32(ncclColl)", ("collective", "nccl", "all_reduce")),
        ("ncclKernel_AllReduce_RING_LL_Sum_float(x)", ("collective", "nccl", "all_reduce")),
        ("ncclSymkDevKernel_AllReduce_RSxLD(x)", ("collective", "nccl", "all_reduce")),
        ("ncclDevKernel_ReduceScatter_Sum_bf16_RING_LL(x)",
         ("collective", "nccl", "reduce_scatter")),
        ("ncclDevKernel_Reduce_Sum_bf16_RING_LL(x)", ("collective", "nccl", "reduce")),
        ("ncclDevKernel_Generic_4(x)", ("collective", "nccl", "other")),
        ("void vllm::cross_device_reduce_1stage<half, (int)2>(int)",
         ("collective", "vllm", "all_reduce")),
        ("multimem_all_reduce_kernel<float>(int)",
         ("collective", "torch_symmetric_memory", "all_reduce")),
    ],
)  # fmt: skip
def test_known_kernels(name: str, expected: tuple[str, str, str]) -> None:
    found = default_class_map().classify(name)
    assert (found.name, found.backend, found.role) == expected


@pytest.mark.parametrize(
    "name",
    [
        "my_nccl_tests_helper",
        "void my::solver::dispatch<int>(int)",
        "void vllm::cutlass_w4a8_moe::unified_encode_int4b_device(int)",
        "remoe_layer",
        "not_fused_moe_kernel",
        "fused_moe_kernel_of_mine",
        "void helper<ncclDevKernel_AllReduce_Sum_f32_RING_LL>(ncclComm*)",
        "void pack(fused_moe_kernel*)",
        "'; DROP TABLE kernels; --",
        "<script>fused_moe_kernel</script>",
    ],
)
def test_a_piece_of_a_name_is_not_enough(name: str) -> None:
    assert default_class_map().classify(name).name not in {"moe_gemm", "moe_all2all", "collective"}


def test_every_class_of_a_rule_is_described() -> None:
    shipped = default_class_map()
    assert {rule.name for rule in shipped.rules} == shipped.descriptions.keys()


def test_a_users_rules_come_first(tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text('[[rule]]\nclass = "moe_gemm"\nfunction = ["my_expert_kernel", "nccl.*"]\n')
    extended = default_class_map().extended_by(own)
    assert extended.classify("my_expert_kernel").name == "moe_gemm"
    assert extended.classify("ncclDevKernel_AllGather_RING_LL(x)").name == "moe_gemm"
    assert extended.classify("fused_moe_kernel").name == "moe_gemm"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[rule]", "not TOML"),
        ('[[rule]]\nclass = "x"', "at least `class` and `function`"),
        ('[[rule]]\nclass = "x"\nfunction = "("', "not a regular expression"),
        ('[[rule]]\nclass = "x"\nfunction = "a"\nregex = "b"', "unknown key `regex`"),
        ('[[rule]]\nclass = ""\nfunction = "a"', "must be a text that is not empty"),
        ("rule = 1", "expected [[rule]] tables"),
    ],
)
def test_a_bad_map_is_refused_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    own = tmp_path / "own.toml"
    own.write_text(text)
    with pytest.raises(ClassMapError) as error:
        default_class_map().extended_by(own)
    assert message in str(error.value)
    assert "own.toml" in str(error.value)


def test_a_missing_map_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ClassMapError, match="No such file"):
        default_class_map().extended_by(tmp_path / "none.toml")
