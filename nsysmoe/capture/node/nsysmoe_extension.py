"""What runs inside each of vLLM's workers, mixed in by ``worker_extension_cls``.

Called by name through ``collective_rpc``; plain values go back.
"""

from __future__ import annotations

import math
import os
import zlib
from typing import Any


class NsysmoeExtension:
    """The profile range of versions without one, EPLB's state, and weights for experiments."""

    # Of vLLM's worker, which this is mixed into.
    model_runner: Any
    parallel_config: Any

    def nsysmoe_profile(self, is_on: bool) -> None:
        """Open or close nsys's capture range on this rank."""
        import torch

        torch.cuda.synchronize()
        if is_on:
            torch.cuda.profiler.start()
        else:
            torch.cuda.profiler.stop()

    def nsysmoe_eplb(self) -> dict[str, Any] | None:
        """Return EPLB's counter and where experts live; None without EPLB."""
        state = getattr(self.model_runner, "eplb_state", None)
        if state is None:
            return None
        # Before a model had a state of its own, the state held one model.
        models = getattr(state, "model_states", None) or {"model": state}
        return {
            "step": int(getattr(state, "expert_rearrangement_step", 0)),
            "interval": int(getattr(state, "expert_rearrangement_step_interval", 0)),
            "is_async": bool(getattr(state, "is_async", False)),
            # Asynchronously, layer after layer moves while requests are served.
            "is_moving": any(getattr(model, "rebalanced", False) for model in models.values()),
            "models": {
                str(name)[:16]: {"physical_to_logical_map": model.physical_to_logical_map.tolist()}
                for name, model in models.items()
            },
        }

    def nsysmoe_worker(self) -> dict[str, Any]:
        """Return which process this is: a trace knows processes by their ids, and no ranks."""
        config = getattr(self, "parallel_config", None)
        return {
            "pid": os.getpid(),
            "data_parallel_rank": int(getattr(config, "data_parallel_rank", 0) or 0),
            "expert_parallel_rank": _expert_rank(),
        }

    def nsysmoe_warm_steps(self, sizes: str, rows: str) -> int:
        """Run a step of each of so many tokens, and logits of 1 to ``rows`` requests.

        Libraries choose a kernel by the size of a step, and load its code when they first do.
        Requests meet in steps by chance: rounds of them cannot be relied on to form every size.

        Args:
            sizes: Tokens of each step, with commas between: a server's call takes texts alone.
            rows: Requests that a step may hold.

        Returns:
            Steps that ran; 0 where this version has no run of its own to warm up with.
        """
        run = getattr(self.model_runner, "_dummy_run", None)
        wanted = [int(size) for size in sizes.split(",") if size]
        if run is None or not wanted:
            return 0
        import torch

        for size in wanted:
            # EPLB is not to balance by what nobody asked for.
            _, last = run(size, skip_eplb=True)
        model = self.model_runner.get_model()
        with torch.inference_mode():
            for count in range(1, min(int(rows), len(last)) + 1):
                model.compute_logits(last[:count])
        torch.cuda.synchronize()
        return len(wanted)

    def nsysmoe_draw_weights(self, deviation: float | str, seed: int | str) -> int:
        """Draw weights anew: norms 1, the rest normal; return how many there are.

        vLLM's dummy weights are so small that every expert and every router gives almost 0.
        """
        import torch

        deviation, seed = float(deviation), int(seed)
        count = 0
        for name, weight in self._nsysmoe_weights():
            # The same on every rank: routers are copies of one another, and must stay so.
            generator = torch.Generator(device=weight.device)
            generator.manual_seed(seed + zlib.crc32(name.encode()) % 100_000)
            with torch.no_grad():
                if "norm" in name:
                    weight.fill_(1.0)
                else:
                    weight.normal_(0.0, deviation, generator=generator)
            count += 1
        return count

    def nsysmoe_skew_routers(self, skew: float | str) -> int:
        """Scale row e of n of every router by exp(-skew e / (n - 1)); return how many there are."""
        import torch

        skew = float(skew)
        count = 0
        for name, weight in self._nsysmoe_weights():
            if not name.endswith("gate.weight") or weight.dim() != 2:
                continue
            rows = weight.shape[0]
            scale = [math.exp(-skew * row / max(rows - 1, 1)) for row in range(rows)]
            with torch.no_grad():
                weight.mul_(torch.tensor(scale, dtype=weight.dtype, device=weight.device)[:, None])
            count += 1
        return count

    def _nsysmoe_weights(self) -> list[tuple[str, Any]]:
        """Return the weights that a normal draw can fill: those of 16 bits or more."""
        named = self.model_runner.get_model().named_parameters()
        return [
            (name, weight)
            for name, weight in named
            if weight.is_floating_point() and weight.element_size() > 1
        ]


def _expert_rank() -> int | None:
    """Return which part of the experts this rank holds; None where vLLM does not tell."""
    try:
        from vllm.distributed.parallel_state import get_ep_group

        return int(get_ep_group().rank_in_group)
    except (ImportError, AssertionError, AttributeError):
        return None
