"""An engine of its own, in plain Python: what the reconstruction is held against.

It schedules as vLLM does (running requests first, then waiting ones in order, while tokens and
places last) and writes down both the labels of its steps and the tokens that ran in each.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any


@dataclass
class Engine:
    prompts: list[int]
    outputs: list[int]
    max_running: int
    max_tokens: int
    arrivals: list[int]
    labels: list[dict[str, Any]] = field(default_factory=list)
    fed: list[list[tuple[int, int]]] = field(default_factory=list)

    def run(self) -> Engine:
        """Serve all requests; ``fed`` is (request, token) of each step."""
        waiting = list(range(len(self.prompts)))
        running: list[int] = []
        computed = dict.fromkeys(waiting, 0)
        while waiting or running:
            step: list[tuple[int, int]] = []
            budget, label = self.max_tokens, [0, 0, 0, 0]
            for request in running:
                reads = computed[request] < self.prompts[request]
                wanted = self.prompts[request] - computed[request] if reads else 1
                budget -= self.feed(step, label, computed, request, min(wanted, budget), reads)
            while waiting and budget and len(running) < self.max_running:
                if self.arrivals[waiting[0]] > len(self.labels):
                    break
                request = waiting.pop(0)
                running.append(request)
                wanted = min(self.prompts[request], budget)
                budget -= self.feed(step, label, computed, request, wanted, True)
            self.write(label, step)
            running = [
                request
                for request in running
                if computed[request] < self.prompts[request] + self.outputs[request] - 1
            ]
        self.write([0, 0, 0, 0], [])
        return self

    @staticmethod
    def feed(
        step: list[tuple[int, int]],
        label: list[int],
        computed: dict[int, int],
        request: int,
        tokens: int,
        reads: bool,
    ) -> int:
        step.extend((request, computed[request] + i) for i in range(tokens))
        computed[request] += tokens
        at = 0 if reads else 2
        label[at] += 1
        label[at + 1] += tokens
        return tokens

    def write(self, label: list[int], step: list[tuple[int, int]]) -> None:
        names = ("context_requests", "context_tokens", "generation_requests", "generation_tokens")
        self.labels.append({"step": len(self.labels), **dict(zip(names, label, strict=True))})
        self.fed.append(step)


def engine(seed: int, requests: int, max_running: int, max_tokens: int, late: int = 0) -> Engine:
    """Serve random requests; up to ``late`` steps pass before the next one arrives."""
    random = Random(seed)
    prompts = [random.randint(1, 40) for _ in range(requests)]
    outputs = [random.randint(1, 12) for _ in range(requests)]
    arrivals, at = [], 0
    for _ in range(requests):
        arrivals.append(at)
        at += random.randint(0, late)
    return Engine(prompts, outputs, max_running, max_tokens, arrivals).run()
