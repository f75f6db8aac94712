"""What to know about a trace whose routing was replayed, before believing what is made of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nsysmoe.findings import Finding

if TYPE_CHECKING:
    from pathlib import Path

    import polars as pl

    from nsysmoe.analysis.routing.batches import Batches
    from nsysmoe.routing import PlacementHistory, RoutingLog, RunRecord


@dataclass(frozen=True)
class Told:
    """What was read of an arm.

    Attributes:
        trace: The trace.
        record: The record of its run, as a file.
        log: Its routing.
        run: The record.
        batches: Launches and tokens by batch.
        history: Where experts lived.
    """

    trace: Path
    record: Path
    log: RoutingLog
    run: RunRecord
    batches: Batches
    history: PlacementHistory

    def of_batches(
        self, launches: pl.DataFrame, moved: pl.DataFrame, *, unplaced: int, is_told_by_grids: bool
    ) -> list[Finding]:
        """Return what to know.

        Args:
            launches: With their work.
            moved: Rearrangements of the trace.
            unplaced: Launches that were left out, since no record tells where experts lived.
            is_told_by_grids: Whether the grids of all launches follow from the rows counted.
        """
        return [
            *self._partial(),
            *self._dummies(launches),
            *self._workers(),
            *self._engines(),
            *([] if is_told_by_grids else self._grids()),
            *self._padding(launches),
            *self._unplaced(unplaced),
            *self._unseen(moved),
            *self._replicas(),
        ]

    def _partial(self) -> list[Finding]:
        left = self.batches.left
        if not left:
            return []
        total = sum(self.log.tokens)
        return [
            Finding(
                "partial_run",
                "info",
                f"{self.trace} ends before the run does: {total - left:,} of {total:,} tokens ran "
                "in it",
                {"source": str(self.trace), "tokens": total, "left": left},
            )
        ]

    def _dummies(self, launches: pl.DataFrame) -> list[Finding]:
        left_out = self.batches.dummies
        if left_out.is_empty():
            return []
        spent = int(left_out["dur_ns"].sum())
        ratio = spent / (spent + int(launches["dur_ns"].sum()))
        passes = left_out["step"].n_unique()
        return [
            Finding(
                "unrouted_passes",
                "info",
                f"{passes:,} passes of {self.trace} ({ratio:.1%} of MoE time) served no request on "
                "any rank, data-parallel engines only kept step: nobody wrote down what they "
                "routed, and they are left out",
                {
                    "source": str(self.trace),
                    "passes": passes,
                    "launches": left_out.height,
                    "time_ratio": ratio,
                },
            )
        ]

    def _workers(self) -> list[Finding]:
        if not self.batches.is_refuted:
            return []
        taken = (
            "the order of GPUs"
            if self.batches.told_by == "order"
            else "the one way that lengths and steps allow"
        )
        return [
            Finding(
                "workers_differ",
                "warning",
                f"the processes of {self.record} (`workers`) do not fit those of {self.trace}: "
                f"they do not give each process its own of {self.batches.engines} data-parallel "
                f"ranks; taken instead is {taken}",
                {
                    "source": str(self.trace),
                    "engines": self.batches.engines,
                    "taken": self.batches.told_by,
                },
            )
        ]

    def _engines(self) -> list[Finding]:
        if self.batches.told_by != "order":
            return []
        return [
            Finding(
                "engines_by_order",
                "warning",
                f"which process of {self.trace} is which data-parallel rank of {self.record} is "
                "not known: lengths and steps fit in several ways, and ranks are taken in the "
                "order of GPUs (records with `workers` tell)",
                {"source": str(self.trace), "engines": self.batches.engines},
            )
        ]

    def _grids(self) -> list[Finding]:
        if self.batches.engines == 1:
            return []
        return [
            Finding(
                "grids_differ",
                "warning",
                f"the grids of MoE kernels in {self.trace} do not follow from the tokens of its "
                f"{self.batches.engines} engines together: they dispatch otherwise, or pad to "
                "sizes of their own, and work may be counted wrongly",
                {"source": str(self.trace), "engines": self.batches.engines},
            )
        ]

    def _padding(self, launches: pl.DataFrame) -> list[Finding]:
        padded = launches.filter(launches["is_padded"])
        if padded.is_empty():
            return []
        ratio = int(padded["dur_ns"].sum()) / int(launches["dur_ns"].sum())
        steps = padded["step"].n_unique()
        what = (
            f"{steps:,} steps of {self.trace} ({ratio:.1%} of MoE time) were padded to a CUDA "
            "graph's size"
            if self.batches.engines == 1
            else f"{steps:,} passes of {self.trace} ({ratio:.1%} of MoE time) were padded to a "
            "size common to all engines or to a CUDA graph's, or held dummy tokens of engines "
            "without a request"
        )
        return [
            Finding(
                "padded_batches",
                "info",
                f"{what}: padding chooses experts too and nobody wrote down which, so these "
                f"{'steps' if self.batches.engines == 1 else 'passes'} are not fitted",
                {
                    "source": str(self.trace),
                    "steps": steps,
                    "launches": padded.height,
                    "time_ratio": ratio,
                },
            )
        ]

    def _unplaced(self, launches: int) -> list[Finding]:
        if not launches:
            return []
        return [
            Finding(
                "unknown_placement",
                "warning",
                f"{launches:,} MoE kernels of {self.trace} ran between two rearrangements: the "
                "record of the run has the maps before and after all of them only, so they are "
                "left out",
                {"source": str(self.trace), "launches": launches},
            )
        ]

    def _unseen(self, moved: pl.DataFrame) -> list[Finding]:
        if moved.height or not self.history.changes:
            return []
        return [
            Finding(
                "unseen_rearrangement",
                "warning",
                f"the maps of {self.record} differ and {self.trace} shows no rearrangement: it "
                "came before the capture, or moved weights by copies; the last map is taken for "
                "all steps",
                {"source": str(self.trace)},
            )
        ]

    def _replicas(self) -> list[Finding]:
        history = self.history
        if not (history.before.has_replicas or history.after.has_replicas):
            return []
        return [
            Finding(
                "replica_choice",
                "info",
                f"{self.trace} has replicas: which of them a token was given follows vLLM's hash "
                "of its row in its engine's batch (0.20.2 on), with rows in order of arrival; "
                "where the engine reused a slot, single tokens may have gone to the other replica",
                {
                    "source": str(self.trace),
                    "engine": self.run.engine,
                    "physical": history.after.physical,
                    "logical": history.after.experts,
                },
            )
        ]
