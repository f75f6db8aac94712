"""Whether the arms can be compared at all."""

from __future__ import annotations

import filecmp
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import polars as pl

from nsysmoe.analysis.reading.attribution import attribution_text
from nsysmoe.classes import UNCLASSIFIED
from nsysmoe.findings import Finding
from nsysmoe.metrics.kernel_time.communication import class_shares
from nsysmoe.metrics.kernel_time.table1 import relative_change
from nsysmoe.metrics.kernel_time.work import MOST_DIFFERENT, work_difference
from nsysmoe.metrics.statistics.uncertainty import MIN_RUNS

if TYPE_CHECKING:
    from pathlib import Path

    from nsysmoe.analysis.reading.arm import Arm
    from nsysmoe.analysis.reading.run import Run


# Below this share of GPU time, what nobody classified cannot change a verdict of Table 1.
_NOTABLE_UNCLASSIFIED_RATIO = 0.01
# Below this share of MoE time, what is said by phase leaves out too much to be taken as it is.
_SURE_RATIO = 0.75
_RANKED_BY = {"wall_time_ns": "wall time", "total_time_ns": "MoE total"}
_GRAPHS = (
    "CUDA graphs were recorded as a whole in {where}: the kernels inside them are in no number "
    "here; capture again with --cuda-graph-trace=node"
)


def same_file(baseline: Run, candidate: Run) -> Finding | None:
    """Both arms are one file, or two copies of it; the same files, where a run has several."""
    first, second = (run.files or (run.path,) for run in (baseline, candidate))
    if len(first) != len(second) or not all(map(_is_copy, first, second)):
        return None
    return Finding(
        "same_file",
        "error",
        f"baseline and candidate are the same trace ({baseline.path} and {candidate.path}): "
        "every change is 0 by construction",
        {"baseline": str(baseline.path), "candidate": str(candidate.path)},
    )


def _is_copy(one: Path, other: Path) -> bool:
    return one.samefile(other) or (
        one.stat().st_size == other.stat().st_size and filecmp.cmp(one, other, shallow=False)
    )


def lost_device(baseline: Run, candidate: Run) -> Finding | None:
    """One arm ran its experts on fewer GPUs than the other."""
    if baseline.gpus is None or candidate.gpus is None or baseline.gpus == candidate.gpus:
        return None
    fewer = "baseline" if baseline.gpus < candidate.gpus else "candidate"
    return Finding(
        "lost_device",
        "error",
        f"the {fewer} has fewer GPUs with MoE kernels ({baseline.gpus} in the baseline, "
        f"{candidate.gpus} in the candidate): totals over GPUs cannot be compared; check that "
        "every worker was traced",
        {"baseline_gpus": baseline.gpus, "candidate_gpus": candidate.gpus},
    )


def cuda_graph_mode(baseline: Run, candidate: Run) -> Finding | None:
    """CUDA graphs were recorded as a whole in an arm, so kernels are missing from it."""
    arms = {"the baseline": baseline, "the candidate": candidate}
    found = [hidden_kernels(n, str(run.path), *run.graph_launches) for n, run in arms.items()]
    hidden = [finding for finding in found if finding]
    if len(hidden) < 2:
        return hidden[0] if hidden else None
    evidence = {"baseline": hidden[0].evidence, "candidate": hidden[1].evidence}
    return replace(hidden[0], message=_GRAPHS.format(where="both arms"), evidence=evidence)


def hidden_kernels(where: str, source: str, launches: int, total_ns: int) -> Finding | None:
    """CUDA graphs were recorded as a whole, so their kernels are missing."""
    if not launches:
        return None
    evidence = {"source": source, "graph_launches": launches, "graph_total_ns": total_ns}
    return Finding("cuda_graph_mode", "error", _GRAPHS.format(where=where), evidence)


def unequal_work(baseline: Run, candidate: Run) -> Finding | None:
    """The runs launched different numbers of MoE kernels, or worked on different tokens."""
    before, after = baseline.launches, candidate.launches
    difference = _work_difference(baseline, candidate)
    if before == after and not difference:
        return None
    launches = relative_change(before, after)
    total = _change_of(baseline, candidate, "total_ns")
    per_launch = _change_of(baseline, candidate, "mean_ns")
    evidence = {
        "baseline_launches": before,
        "candidate_launches": after,
        "launches_change": launches,
        "total_time_change": total,
        "mean_change": per_launch,
        "difference": difference,
        "work": {"baseline": baseline.work, "candidate": candidate.work},
        **_per_token(baseline, candidate),
    }
    critical = max(run.values["critical_moe_ns"] or 0.0 for run in (baseline, candidate))
    if before == after:
        message = (
            f"the arms launched the same {before:,} MoE kernels for different work: "
            f"{_told(difference)}"
        )
        return Finding("unequal_work", "info", message, evidence)
    message = (
        f"the arms did not do the same work: {before:,} and {after:,} launches of MoE kernels; "
        f"the total's {total:+.2%} is {launches:+.2%} launches and {per_launch:+.2%} time a launch"
    )
    if others := {key: value for key, value in difference.items() if key != "launches"}:
        message += f"; {_told(others)}"
    finding = Finding("unequal_work", "warning", message, evidence)
    return finding.explaining(abs(launches or 0.0) * critical)


def attributed(baseline: Run, candidate: Run) -> Finding | None:
    """How phases and layers are known, and for which part of MoE time."""
    parts = {
        name: run.schedule.attribution
        for name, run in (("baseline", baseline), ("candidate", candidate))
        if run.schedule is not None
    }
    if not parts:
        return None
    is_sure = all(
        part["method"] == "nvtx" and (part["time_ratio"] or 0.0) > _SURE_RATIO
        for part in parts.values()
    )
    told = "; ".join(f"{name}: {attribution_text(part)}" for name, part in parts.items())
    return Finding("attribution", "info" if is_sure else "warning", told, parts)


def not_comparable(baseline: Arm, candidate: Arm) -> str | None:
    """Return why totals of the two arms may not be judged; None where they may."""
    runs = baseline.representative, candidate.representative
    if lost_device(*runs):
        return f"MoE kernels ran on {runs[0].gpus} GPUs in one and {runs[1].gpus} in the other"
    if cuda_graph_mode(*runs):
        return "CUDA graphs were recorded as a whole, and hide kernels"
    launched = relative_change(runs[0].launches, runs[1].launches) or 0.0
    difference = {"launches": launched, **_work_difference(*runs)}
    for key, what in (("launches", "MoE launches"), ("tokens", "tokens")):
        if abs(difference.get(key, 0.0)) > MOST_DIFFERENT:
            return f"their {what} differ by {difference[key]:+.0%}"
    return None


def number_of_runs(baseline: Arm, candidate: Arm) -> Finding | None:
    """Fewer than three runs an arm say little or nothing about how runs differ."""
    counts = {"baseline_runs": len(baseline.runs), "candidate_runs": len(candidate.runs)}
    fewest = min(counts.values())
    if fewest >= MIN_RUNS:
        shown = {arm.label: str(arm.representative.path) for arm in (baseline, candidate)}
        ranked = dict.fromkeys(_RANKED_BY[arm.ranked_by] for arm in (baseline, candidate))
        return Finding(
            "representative_run",
            "info",
            "values of the tables are means over runs; findings and most pictures show the run of "
            f"median {' and '.join(ranked)} of each arm: {' and '.join(shown.values())}",
            {**counts, "shown": shown},
        )
    if fewest == max(counts.values()) == 1:
        message = (
            "one run an arm: no estimate of noise between runs, so no verdict here says that "
            "another pair would show the same; five runs an arm, taken in turn, would"
        )
        return Finding("single_run", "warning", message, counts)
    return Finding(
        "few_runs",
        "warning",
        f"{counts['baseline_runs']} and {counts['candidate_runs']} runs: an interval over runs "
        "takes three an arm, five are better",
        counts,
    )


def _work_difference(baseline: Run, candidate: Run) -> dict[str, float]:
    before, after = baseline.work, candidate.work
    return work_difference(before, after) if before and after else {}


def _told(difference: dict[str, float]) -> str:
    return ", ".join(
        f"{key.replace('steps:', 'steps of ')} {value:+.1%}" for key, value in difference.items()
    )


def _per_token(baseline: Run, candidate: Run) -> dict[str, Any]:
    """Return MoE time by token on both sides, where tokens are known."""
    found = {}
    for side, run in (("baseline", baseline), ("candidate", candidate)):
        work = run.work
        if work and work["tokens"]:
            total = int(run.durations["total_ns"].item())
            found[f"{side}_ns_per_token"] = total / work["tokens"]
    return found


def unclassified_kernels(baseline: Run, candidate: Run) -> Finding | None:
    """A notable part of GPU time is in kernels that the class map does not know."""
    found = [
        unclassified_time("the baseline", baseline),
        unclassified_time("the candidate", candidate),
    ]
    known = [finding for finding in found if finding]
    return max(known, key=lambda finding: finding.evidence["time_ratio"]) if known else None


def unclassified_time(where: str, run: Run) -> Finding | None:
    """A notable part of a run's GPU time is in kernels that the class map does not know."""
    shares = class_shares(run.kernels).filter(pl.col("class") == UNCLASSIFIED)
    if shares.is_empty() or (shares["time_ratio"].item() or 0) < _NOTABLE_UNCLASSIFIED_RATIO:
        return None
    row = shares.row(0, named=True)
    return Finding(
        "unclassified_kernels",
        "info",
        f"{row['kernels']} kernels with {row['time_ratio']:.1%} of the GPU time of {where} match "
        "no class; `nsysmoe kernels` lists them, --classes FILE teaches nsysmoe what they are",
        {
            "source": str(run.path),
            "kernels": row["kernels"],
            "total_ns": row["total_ns"],
            "time_ratio": row["time_ratio"],
        },
    )


def no_moe_kernel(source: str) -> Finding:
    """Nothing that ran is an MoE kernel."""
    return Finding(
        "no_moe_kernel",
        "warning",
        "no MoE kernel ran: nothing of Table 1's first group can be measured here",
        {"source": source},
    )


def _change_of(baseline: Run, candidate: Run, statistic: str) -> float:
    """Return the change of a statistic of MoE kernels; 0 where the baseline's is 0."""
    before, after = (run.durations[statistic].item() for run in (baseline, candidate))
    return relative_change(before, after) or 0.0
