"""The rounds of a run, the same for vLLM as a library and as a server; standard library only."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse

    from nsysmoe.capture.node import nsysmoe_workers as workers
    from nsysmoe.capture.node import nsysmoe_workload as workload
else:
    # Imported as a part of the package, this folder is not where Python looks.
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    import nsysmoe_workers as workers
    import nsysmoe_workload as workload

_SWEEP_TOKENS = 2


class Rounds:
    """What is run before the measured round, and the order of it all.

    Attributes:
        options: Those of ``nsysmoe_workload`` and of ``nsysmoe_workers``.
        stages: Where it says what is being done.
        workers: The workers of the engine.
    """

    options: argparse.Namespace
    stages: workload.Stages
    workers: workers.Workers

    def some(self, count: int, most_tokens: int) -> None:
        """Have the first requests answered at once, with so many tokens at most."""
        raise NotImplementedError

    def again(self) -> None:
        """Run a round that nobody looks at."""
        raise NotImplementedError

    def timed(self, name: str) -> dict[str, Any]:
        """Run a round, and return what it took."""
        raise NotImplementedError

    def profiled(self) -> dict[str, Any]:
        """Run a round inside the capture range."""
        raise NotImplementedError

    def meet(self, name: str) -> None:
        """Wait for whoever runs the same rounds beside this."""

    def agree(self, name: str, is_so: bool) -> bool:  # noqa: ARG002 - for who runs beside this
        """Return what all that run the same rounds go by."""
        return is_so

    def run_all(self) -> list[dict[str, Any]]:
        """Warm up, take the control, and return what was measured."""
        self._warm_up()
        self._place()
        control = self._control()
        return self._unprofiled() or [control, self._profiled()]

    def _warm_up(self) -> None:
        sweep = workload.sweep_of(self.options)
        for number, size in enumerate(sweep, 1):
            self.stages.enter("warming up", number, len(sweep))
            self.some(size, _SWEEP_TOKENS)
        if self.options.settle:
            self.some(1, self.options.settle)
        self.workers.look()
        # The last of the unprofiled rounds is the control.
        for number in range(1, self.options.unprofiled_rounds):
            self.stages.enter("unprofiled round", number, self.options.unprofiled_rounds)
            self.again()
            self.workers.look()

    def _place(self) -> None:
        """Add rounds until EPLB's counter stands where the measured round wants it.

        Batches take a few more steps than were planned, and data-parallel engines idle ones.
        """
        for number in range(1, workers.MOST_MORE_ROUNDS + 1):
            if self.agree(f"placed.{number}", self.workers.is_placed_next()):
                return
            self.stages.enter("one more round", number, workers.MOST_MORE_ROUNDS)
            self.some(1, workers.tokens_between(number))
            self.workers.look()
            self.again()
            self.workers.look()

    def _control(self) -> dict[str, Any]:
        rounds = self.options.unprofiled_rounds
        self.stages.enter("unprofiled round", rounds, rounds)
        self.meet("control")
        found = self.timed("control")
        self.workers.look()
        return found

    def _unprofiled(self) -> list[dict[str, Any]]:
        """Return rounds without a profiler, where they are what is measured."""
        found = []
        for number in range(1, self.options.measured_rounds + 1):
            self.meet(f"measured.{number}")
            self.stages.enter("measuring", number, self.options.measured_rounds)
            found.append(self.timed("measured"))
            self.workers.look()
        return found

    def _profiled(self) -> dict[str, Any]:
        self.meet("start")
        self.stages.enter("measuring")
        found = self.profiled()
        self.workers.look()
        return found
