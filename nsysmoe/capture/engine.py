"""Options of vLLM for one arm: what this version takes, and nothing that it would ignore."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from nsysmoe.capture.versions import Version, eplb_key_since, since, supported
from nsysmoe.errors import CaptureError

if TYPE_CHECKING:
    from nsysmoe.capture.spec import Arm, Spec

EXTENSION = "nsysmoe_extension.NsysmoeExtension"

# On shared hosts NVLink multicast can put GPUs out of service; each of these would use it.
_NO_MULTICAST = {
    "NCCL_NVLS_ENABLE": "0",
    "NVSHMEM_DISABLE_NVLS": "1",
    "TORCH_SYMM_MEM_DISABLE_MULTICAST": "1",
    "VLLM_ALLREDUCE_USE_FLASHINFER": "0",
    "VLLM_ALLREDUCE_USE_SYMM_MEM": "0",
    "VLLM_USE_NCCL_SYMM_MEM": "0",
}


def check(spec: Spec) -> Version:
    """Return the version of a spec that it can honour.

    Raises:
        CaptureError: It cannot; the message names the option and the first version that can.
    """
    version = supported(spec.vllm)
    is_profiled = spec.profile != "none"
    if spec.mode == "server" and is_profiled and not version.has("profiler_config"):
        _refuse(version, "--mode server (profiling by HTTP)", since("profiler_config"))
    if spec.routed_experts and not version.has("returned_experts"):
        _refuse(version, "--routed-experts", since("returned_experts"))
    for arm in spec.arms:
        _check_arm(spec.of(arm), arm, version)
    _check_sets(spec)
    if spec.mode == "server":
        _check_server(spec, version)
    elif spec.load.client != "own" or spec.load.rate is not None:
        raise CaptureError("--request-rate and --load bench need --mode server")
    return version


def _check_sets(spec: Spec) -> None:
    """Refuse sets of GPUs that overlap or are too small."""
    named = [gpu for gpus in spec.gpu_sets for gpu in gpus]
    if len(set(named)) < len(named):
        raise CaptureError("a GPU is in two of --gpu-sets; runs would share it")
    for gpus in spec.gpu_sets:
        if len(gpus) < spec.ranks:
            raise CaptureError(
                f"{','.join(gpus)} of --gpu-sets are not the {spec.ranks} GPUs of a run"
            )


def _check_arm(spec: Spec, arm: Arm, version: Version) -> None:
    if spec.workload.count < spec.layout.data:
        raise CaptureError(
            f"{spec.workload.count} requests leave some of {spec.layout.data} data-parallel ranks "
            "without any; add --num-prompts"
        )
    if arm.is_balanced:
        _check_balancing(spec, arm, version)


def _check_balancing(spec: Spec, arm: Arm, version: Version) -> None:
    balancing = spec.balancing
    if not arm.is_expert_parallel:
        raise CaptureError(
            f"{arm.name} has EPLB on without expert parallelism; there is nothing to balance"
        )
    if spec.layout.ranks < 2:
        raise CaptureError(
            "EPLB needs more than one GPU to balance between; add --expert-parallel 2 or more, "
            "or capture --eplb off alone"
        )
    asked = {"use_async": balancing.is_async, "communicator": balancing.communicator}
    for key, value in asked.items():
        # Without the key every version before it was synchronous.
        if value and not version.takes(key):
            _refuse(version, f"eplb_config's {key}", eplb_key_since(key))
    is_async = balancing.is_async
    if is_async is None:
        is_async = version.has("async_eplb_by_default")
    if is_async and balancing.communicator in {"torch_nccl", "pynccl"}:
        raise CaptureError(
            f"EPLB cannot move experts asynchronously through {balancing.communicator}; "
            "add --no-eplb-async or another --eplb-communicator"
        )


def _check_server(spec: Spec, version: Version) -> None:
    if spec.load.client == "bench" and not version.has("bench_serve"):
        _refuse(version, "--load bench (the options that it needs)", since("bench_serve"))
    if spec.routed_experts:
        raise CaptureError(
            "--routed-experts needs --mode offline: a server returns them with every answer, "
            "which would be measured too"
        )


def _refuse(version: Version, what: str, first: str) -> None:
    raise CaptureError(f"vLLM {version} has no {what}, {first} has; leave it out or upgrade")


def environment(spec: Spec) -> dict[str, str]:
    """Return the variables of every process of vLLM; the user's own come last."""
    version = supported(spec.vllm)
    found = {"VLLM_NO_USAGE_STATS": "1"}
    if spec.profile != "none":
        # A forked process that holds CUDA cannot be traced.
        found["VLLM_WORKER_MULTIPROC_METHOD"] = "spawn"
        found["VLLM_NVTX_SCOPES_FOR_PROFILING"] = "1"
    if spec.mode == "server":
        # The endpoint for calls of workers' methods; the server listens on 127.0.0.1 alone.
        found["VLLM_SERVER_DEV_MODE"] = "1"
    if not spec.multicast:
        found |= _NO_MULTICAST
    if spec.engine.all2all and version.has("all2all_variable"):
        found["VLLM_ALL2ALL_BACKEND"] = spec.engine.all2all
    return {**found, **dict(spec.environment)}


def options(spec: Spec, arm: Arm) -> dict[str, Any]:
    """Return the options of vLLM, by the names of ``vllm.LLM``'s arguments, for an arm's spec."""
    engine, version = spec.engine, supported(spec.vllm)
    found: dict[str, Any] = {
        "model": spec.model,
        "tensor_parallel_size": spec.layout.tensor,
        "enable_expert_parallel": arm.is_expert_parallel,
        "max_num_seqs": engine.max_sequences,
        "max_num_batched_tokens": engine.max_step_tokens,
        # A second round of the same prompts would find them cached.
        "enable_prefix_caching": False,
        "seed": spec.workload.seed,
        "dtype": engine.dtype,
        "gpu_memory_utilization": engine.memory_share,
    }
    found |= _where_given(spec)
    if engine.all2all and version.has("all2all_backend"):
        found["all2all_backend"] = engine.all2all
    if version.has("profiler_config") and spec.profile != "none":
        found["profiler_config"] = {"profiler": "cuda"}
    found["worker_extension_cls"] = EXTENSION
    if spec.mode == "offline":
        found |= _offline(spec, version)
    elif spec.layout.data > 1:
        found["data_parallel_size"] = spec.layout.data
    if arm.is_balanced:
        found |= {"enable_eplb": True, "eplb_config": _eplb_config(spec, version)}
    return {**found, **{key: json.loads(value) for key, value in engine.more}}


def _where_given(spec: Spec) -> dict[str, Any]:
    """Return the options that are not vLLM's defaults."""
    engine = spec.engine
    given: tuple[tuple[str, Any, bool], ...] = (
        ("load_format", engine.load_format, engine.load_format != "auto"),
        ("max_model_len", engine.max_model_tokens, engine.max_model_tokens is not None),
        ("enforce_eager", True, engine.is_eager),
        ("skip_tokenizer_init", True, engine.skip_tokenizer),
        ("hf_overrides", {"num_hidden_layers": engine.layers}, engine.layers is not None),
    )
    return {key: value for key, value, is_given in given if is_given}


def _offline(spec: Spec, version: Version) -> dict[str, Any]:
    found: dict[str, Any] = {"disable_log_stats": False}
    if keeps_routing(spec, version):
        found["enable_return_routed_experts"] = True
    return found


def keeps_routing(spec: Spec, version: Version) -> bool:
    """Tell whether runs keep the experts that tokens chose."""
    if spec.routed_experts is None:
        return spec.mode == "offline" and version.has("returned_experts")
    return spec.routed_experts


def _eplb_config(spec: Spec, version: Version) -> dict[str, Any]:
    balancing = spec.balancing
    found: dict[str, Any] = {
        "window_size": balancing.window,
        "step_interval": balancing.interval,
        "num_redundant_experts": balancing.redundant,
    }
    if balancing.logs:
        found["log_balancedness"] = True
    if balancing.is_async is not None and version.takes("use_async"):
        found["use_async"] = balancing.is_async
    if communicator := _communicator(spec, version):
        found["communicator"] = communicator
    return found


def _communicator(spec: Spec, version: Version) -> str | None:
    """Return what moves weights; NCCL where they move synchronously: it leaves kernels to see."""
    if spec.balancing.communicator:
        return spec.balancing.communicator
    is_sync = spec.balancing.is_async is False
    return "torch_nccl" if is_sync and version.takes("communicator") else None
