"""What to know before believing Table 1: pure rules from two runs to findings.

Each rule takes the representative run of each arm and returns one finding or None; what metrics
show, which are means over runs, comes from those who judged them. Errors come first, then how many
runs there are, and which of them the rest shows; then what accounts for most wall time; among the
others, the order of ``RULES``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nsysmoe.analysis.diagnosis import balance, communication, comparability, eplb, wall
from nsysmoe.analysis.diagnosis.comparability import (
    hidden_kernels,
    no_moe_kernel,
    not_comparable,
)

if TYPE_CHECKING:
    from nsysmoe.analysis.reading.arm import Arm
    from nsysmoe.analysis.reading.run import Run
    from nsysmoe.findings import Finding

__all__ = ["diagnose", "diagnose_one", "hidden_kernels", "no_moe_kernel", "not_comparable"]

RULES = (
    comparability.same_file,
    comparability.lost_device,
    comparability.cuda_graph_mode,
    balance.balance,
    communication.waiting_causes,
    communication.waiting,
    communication.waiting_uncertainty,
    communication.last_to_arrive,
    communication.waiting_explained,
    comparability.unequal_work,
    comparability.attributed,
    wall.dummy_passes,
    wall.phases_apart,
    wall.distorted_steps,
    wall.idle_devices,
    communication.other_allreduce,
    eplb.eplb_activity,
    eplb.rearrangements,
    communication.communication_mix,
    communication.bookkeeping_allreduce,
    comparability.unclassified_kernels,
)


def diagnose(baseline: Arm, candidate: Arm, *judged: Finding | None) -> list[Finding]:
    """Return what the two arms together show, then what was odd about each input.

    Args:
        baseline: The first arm.
        candidate: The second.
        judged: What the judged metrics show, where they do.
    """
    before, after = baseline.representative, candidate.representative
    runs = comparability.number_of_runs(baseline, candidate)
    found = [runs, *judged, *(rule(before, after) for rule in RULES)]
    kept = [finding for finding in found if finding]
    kept.sort(
        key=lambda finding: (
            finding.severity != "error",
            finding is not runs,
            -finding.explains_ns,
        )
    )
    arms = (baseline, candidate)
    kept += [finding for arm in arms for finding in arm.findings]
    return kept + [finding for arm in arms for run in arm.runs for finding in run.findings]


def diagnose_one(run: Run) -> list[Finding]:
    """Return what one run shows by itself."""
    source = str(run.path)
    found = [
        None if run.launches else no_moe_kernel(source),
        hidden_kernels("this trace", source, *run.graph_launches),
        comparability.unclassified_time("it", run),
    ]
    return [finding for finding in found if finding] + run.findings
