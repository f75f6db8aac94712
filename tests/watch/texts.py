"""What vLLM's /metrics says, by the names of each version, and what its log says."""

from __future__ import annotations

from collections.abc import Sequence

BOUNDS = (0.001, 0.01, 0.1, 1.0, 10.0)
# vLLM's own names, release by release; a release that renamed one told both for a while.
TPOT = {
    "0.9.2": ("vllm:time_per_output_token_seconds",),
    "0.11.0": (
        "vllm:time_per_output_token_seconds",
        "vllm:inter_token_latency_seconds",
        "vllm:request_time_per_output_token_seconds",
    ),
    "0.33.0": (
        "vllm:inter_token_latency_seconds",
        "vllm:request_time_per_output_token_seconds",
    ),
}
CACHE = {
    "0.9.2": ("vllm:gpu_cache_usage_perc", "vllm:kv_cache_usage_perc"),
    "0.11.0": ("vllm:gpu_cache_usage_perc", "vllm:kv_cache_usage_perc"),
    "0.33.0": ("vllm:kv_cache_usage_perc",),
}


def metrics(
    release: str,
    *,
    running: Sequence[float] = (3.0,),
    waiting: float = 2.0,
    ttft: Sequence[float] = (),
    generated: float = 100.0,
) -> str:
    """Write /metrics of one engine for each number of running requests."""
    lines = ["# HELP python_info Python platform information", "# TYPE python_info gauge",
             'python_info{implementation="CPython",major="3"} 1.0']  # fmt: skip
    for engine, each in enumerate(running):
        labels = f'engine="{engine}",model_name="org/mo\\"del"'
        lines += [
            "# TYPE vllm:num_requests_running gauge",
            f"vllm:num_requests_running{{{labels}}} {each}",
            f"vllm:num_requests_waiting{{{labels}}} {waiting}",
            f'vllm:num_requests_waiting_by_reason{{{labels},reason="capacity"}} {waiting}',
            *(f"{name}{{{labels}}} 0.25" for name in CACHE[release]),
            f"vllm:generation_tokens_total{{{labels}}} {generated}",
            f"vllm:generation_tokens_created{{{labels}}} 1.7e+09",
            *_histogram("vllm:time_to_first_token_seconds", labels, ttft),
            *(
                line
                for name in TPOT[release]
                for line in _histogram(name, labels, [0.05] * len(ttft))
            ),
        ]
    return "\n".join(lines) + "\n"


def _histogram(name: str, labels: str, values: Sequence[float]) -> list[str]:
    lines = [f"# TYPE {name} histogram"]
    for bound in (*BOUNDS, float("inf")):
        le = "+Inf" if bound == float("inf") else str(bound)
        count = sum(value <= bound for value in values)
        lines.append(f'{name}_bucket{{{labels},le="{le}"}} {float(count)}')
    return [*lines, f"{name}_sum{{{labels}}} {sum(values)}", f"{name}_count{{{labels}}} 0"]


def eplb_line(
    step: int, countdown: int, *, avg: float = 32.0, most: int = 40, value: float = 0.8,
    model: str = "model", at: str = "11-21 23:05:38",
) -> str:  # fmt: skip
    return (
        f"(Worker_TP0_EP0 pid=1990) INFO {at} [eplb_state.py:597] EPLB step: {step} for model "
        f"{model}: avg_tokens={avg:.2f}, max_tokens={most}, balancedness={value:.4f}, steps until "
        f"the next rearrangement: {countdown}\n"
    )


def old_eplb_line(*, avg: float = 32.0, most: int = 40, value: float = 0.8) -> str:
    """Write EPLB's line as vLLM 0.9.2 to 0.11.0 do."""
    return (
        "(EngineCore_DP0 pid=9) INFO 11-21 23:05:38 [eplb_state.py:391] EPLB step: avg_tokens="
        f"{avg:.2f}, max_tokens={most}, balancedness={value:.4f}\n"
    )


def load_line(engine: int, running: int, waiting: int) -> str:
    return (
        f"INFO 11-21 23:05:40 [loggers.py:123] Engine {engine:03d}: Avg prompt throughput: 5.0 "
        f"tokens/s, Avg generation throughput: 9.1 tokens/s, Running: {running} reqs, Waiting: "
        f"{waiting} reqs, GPU KV cache usage: 12.5%, Prefix cache hit rate: 0.0%\n"
    )
