"""Plays vLLM for one rank: an engine that answers at once, and misbehaves where FAKE_VLLM says."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

__version__ = "0.26.0"
_HOW = os.environ.get("FAKE_VLLM", "")
_LAYERS, _EXPERTS, _TOP_K = 2, 8, 2


class SamplingParams:
    def __init__(self, **options: Any) -> None:
        self.max_tokens = options["max_tokens"]


class _Map:
    def tolist(self) -> list[list[int]]:
        return [list(range(_EXPERTS))] * _LAYERS


class _Balancer:
    def __init__(self, config: dict[str, Any]) -> None:
        interval = config["step_interval"]
        self.expert_rearrangement_step = interval - interval // 4
        self.expert_rearrangement_step_interval = interval
        self.model_states = {"model": SimpleNamespace(physical_to_logical_map=_Map())}

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.expert_rearrangement_step += 1
            if self.expert_rearrangement_step >= self.expert_rearrangement_step_interval:
                self.expert_rearrangement_step = 0
                print("Rearranged experts in 0.10 seconds.", flush=True)


class LLM:
    def __init__(self, **options: Any) -> None:
        self.options = options
        print("loading", options, flush=True)
        _misbehave_at("load")
        _misbehave_at(f"seqs{options['max_num_seqs']}")
        balancer = _Balancer(options["eplb_config"]) if options.get("enable_eplb") else None
        module, _, name = options["worker_extension_cls"].rpartition(".")
        extension = getattr(importlib.import_module(module), name)
        self._worker = extension()
        self._worker.model_runner = SimpleNamespace(eplb_state=balancer)
        self._balancer = balancer
        self._calls = 0

    def start_profile(self) -> None:
        _note("start_profile")
        _misbehave_at("profile")

    def stop_profile(self) -> None:
        _note("stop_profile")

    def collective_rpc(self, name: str, args: tuple[Any, ...] = ()) -> list[Any]:
        size = self.options["tensor_parallel_size"]
        return [getattr(self._worker, name)(*args)] * size

    def generate(self, prompts: list[Any], parameters: list[Any], use_tqdm: bool) -> list[Any]:
        assert not use_tqdm
        _note(f"generate {len(prompts)}")
        tokens = max(one.max_tokens for one in parameters)
        if self._balancer:
            # Now and then a step more than planned, as requests arrive.
            idle = int(os.environ.get("FAKE_IDLE_STEPS", "0"))
            self._balancer.run(tokens + self._calls % 2 + idle)
        self._calls += 1
        now = time.monotonic()
        time.sleep(float(os.environ.get("FAKE_ROUND_S", "0.002")))
        return [
            self._output(f"{self._calls}-{n}", prompt, one.max_tokens, now)
            for n, (prompt, one) in enumerate(zip(prompts, parameters, strict=True))
        ]

    def _output(self, name: str, prompt: dict[str, Any], tokens: int, now: float) -> Any:
        fed = len(prompt["prompt_token_ids"]) + tokens - 1
        wanted = self.options.get("enable_return_routed_experts")
        routed = _routes(fed) if wanted else None
        return SimpleNamespace(
            request_id=name,
            prompt_token_ids=prompt["prompt_token_ids"],
            outputs=[SimpleNamespace(token_ids=[1] * tokens, routed_experts=routed)],
            metrics=SimpleNamespace(
                first_token_latency=0.0005,
                queued_ts=now,
                first_token_ts=now + 0.0005,
                last_token_ts=now + 0.0015,
            ),
        )


def _routes(tokens: int) -> Any:
    # What asks for the version alone, or fails early, does not wait for numpy.
    import numpy as np

    return np.zeros((tokens, _LAYERS, _TOP_K), dtype=np.uint8)


def _misbehave_at(stage: str) -> None:
    how, _, where = _HOW.partition("@")
    if where == f"rank{os.environ.get('VLLM_DP_RANK')}":
        where = stage
    if where != stage:
        return
    if how == "crash":
        raise RuntimeError("CUDA out of memory, says the fake")
    if how == "hang":
        time.sleep(600)
    if how == "stubborn":
        # As a worker does that sits in a collective: it hears nothing, nor does its child, which
        # has left the group and the session.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
        child = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
        _note(f"child {child.pid}")
        time.sleep(600)


def _note(line: str) -> None:
    if path := os.environ.get("FAKE_NOTES"):
        with Path(path).open("a") as file:
            file.write(json.dumps([os.getpid(), os.environ.get("VLLM_DP_RANK"), line]) + "\n")
