"""``vllm bench serve`` as the load of a round, and its result as a round of run.json.

The standard library only; the benchmark itself is vLLM's.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse

    from nsysmoe.capture.node import nsysmoe_workload as workload
else:
    import nsysmoe_workload as workload

_RESULT = "bench.json"


def check(requests: list[dict[str, Any]]) -> None:
    """Refuse requests that the benchmark cannot send.

    Raises:
        ValueError: They are tokens, or of several lengths.
    """
    if len({request["max_tokens"] for request in requests}) > 1:
        raise ValueError("vllm bench serve gives every answer one length; max_tokens differ")
    if any("prompt" not in request for request in requests):
        raise ValueError("vllm bench serve sends texts; the file holds prompt_token_ids alone")


def run(name: str, options: argparse.Namespace, *, is_profiled: bool = False) -> dict[str, Any]:
    """Run one round, profiled by the server where that is asked for.

    Raises:
        ChildProcessError: The benchmark failed, or no request came to an end.
    """
    path = options.output / _RESULT
    path.unlink(missing_ok=True)
    argv = [*_argv(options), *(["--profile"] if is_profiled else [])]
    status = subprocess.run(argv, check=False, stdin=subprocess.DEVNULL).returncode  # noqa: S603
    if status != 0 or not path.is_file():
        raise ChildProcessError(f"vllm bench serve ended with status {status}")
    return round_of(name, json.loads(path.read_text(encoding="utf-8")))


def _argv(options: argparse.Namespace) -> list[str]:
    return [
        sys.executable, "-m", "vllm.entrypoints.cli.main", "bench", "serve",
        "--backend=openai", "--endpoint=/v1/completions", f"--base-url={options.url}",
        f"--model={options.model}", *_data(options), f"--seed={options.seed}",
        f"--request-rate={options.request_rate}", "--temperature=0", "--ignore-eos",
        "--disable-tqdm", "--percentile-metrics=ttft,tpot,itl,e2el", "--save-result",
        "--save-detailed", f"--result-dir={options.output}", f"--result-filename={_RESULT}",
    ]  # fmt: skip


def _data(options: argparse.Namespace) -> list[str]:
    if options.prompts is None:
        return [
            "--dataset-name=random", f"--num-prompts={options.num_prompts}",
            f"--random-input-len={options.input_len}", f"--random-output-len={options.output_len}",
        ]  # fmt: skip
    requests = workload.requests_of(options)
    return [
        "--dataset-name=custom", f"--dataset-path={options.prompts}", "--disable-shuffle",
        "--skip-chat-template", f"--num-prompts={len(requests)}",
        f"--custom-output-len={requests[0]['max_tokens']}",
    ]  # fmt: skip


def round_of(name: str, result: dict[str, Any]) -> dict[str, Any]:
    """Return a round from a detailed result; requests that failed are counted and left out.

    Raises:
        ChildProcessError: None came to an end.
    """
    columns = ("input_lens", "output_lens", "ttfts", "itls")
    rows = [
        _request(number, *values)
        for number, values in enumerate(zip(*(result[name] for name in columns), strict=True))
        if values[1]
    ]
    if not rows:
        errors = [error for error in result.get("errors", []) if error]
        said = str(errors[0]).strip().splitlines()[-1][:200] if errors else "it does not say why"
        raise ChildProcessError(f"no request of vllm bench serve came to an end: {said}")
    kept = {key: value for key, value in result.items() if isinstance(value, str | int | float)}
    found = workload.round_of(name, result["duration"], rows)
    return {**found, "failed": len(result["output_lens"]) - len(rows), "bench": kept}


def _request(
    number: int, prompt: int, output: int, ttft_s: float, itls_s: list[float]
) -> dict[str, Any]:
    decode = sum(itls_s)
    return {
        "id": str(number),
        "prompt_tokens": prompt,
        "output_tokens": output,
        "ttft_s": ttft_s,
        # As the benchmark itself: a token that came with another has no interval of its own.
        "tpot_s": decode / (output - 1) if output > 1 else None,
        "e2e_s": ttft_s + decode,
    }
