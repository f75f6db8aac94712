"""What to know before believing Table 1: pure rules from two arms to findings.

Each rule returns one finding or None; ``RULES`` is their order in every output.
"""

from __future__ import annotations

import filecmp
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import polars as pl

from nsysmoe.classes import COLLECTIVE, EPLB, UNCLASSIFIED
from nsysmoe.findings import Finding
from nsysmoe.metrics.communication import class_shares, nccl_mix
from nsysmoe.metrics.imbalance import imbalance
from nsysmoe.metrics.table1 import relative_change, verdict

if TYPE_CHECKING:
    from nsysmoe.analysis.run import Run

# Below this share of GPU time, what nobody classified cannot change a verdict of Table 1.
_NOTABLE_UNCLASSIFIED_RATIO = 0.01


def diagnose(baseline: Run, candidate: Run) -> list[Finding]:
    """Return what the two arms together show, then what was odd about each input."""
    found = [rule(baseline, candidate) for rule in RULES]
    return [finding for finding in found if finding] + baseline.findings + candidate.findings


def diagnose_one(run: Run) -> list[Finding]:
    """Return what one run shows by itself."""
    source = str(run.path)
    found = [
        None if run.launches else no_moe_kernel(source),
        hidden_kernels("this trace", source, *run.graph_launches),
        unclassified_time("it", run),
    ]
    return [finding for finding in found if finding] + run.findings


def same_file(baseline: Run, candidate: Run) -> Finding | None:
    """Both arms are one file, or two copies of it."""
    if not baseline.path.samefile(candidate.path) and not (
        baseline.path.stat().st_size == candidate.path.stat().st_size
        and filecmp.cmp(baseline.path, candidate.path, shallow=False)
    ):
        return None
    return Finding(
        "same_file",
        "error",
        f"baseline and candidate are the same trace ({baseline.path} and {candidate.path}): "
        "every change is 0 by construction",
        {"baseline": str(baseline.path), "candidate": str(candidate.path)},
    )


def unequal_work(baseline: Run, candidate: Run) -> Finding | None:
    """The arms launched different numbers of MoE kernels."""
    before, after = baseline.launches, candidate.launches
    if before == after:
        return None
    launches = relative_change(before, after)
    total = _change_of(baseline, candidate, "total_ns")
    per_launch = _change_of(baseline, candidate, "mean_ns")
    message = (
        f"the arms did not do the same work: {before:,} and {after:,} launches of MoE kernels; "
        f"the total's {total:+.2%} is {launches:+.2%} launches and {per_launch:+.2%} time a launch"
    )
    evidence = {
        "baseline_launches": before,
        "candidate_launches": after,
        "launches_change": launches,
        "total_time_change": total,
        "mean_change": per_launch,
    }
    return Finding("unequal_work", "warning", message, evidence)


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


def totals_mislead(baseline: Run, candidate: Run) -> Finding | None:
    """The total over ranks and what ranks wait for point in opposite directions."""
    before, after = _balance(baseline), _balance(candidate)
    if before is None or after is None:
        return None
    totals = [int(run.durations["total_ns"].item()) for run in (baseline, candidate)]
    said, meant = verdict(*totals), verdict(before["critical_ns"], after["critical_ns"])
    if {said, meant} != {"better", "worse"}:
        return None
    slowest = [_slowest_rank_ns(run) for run in (baseline, candidate)]
    evidence = {
        "total_time_change": relative_change(*totals),
        "critical_change": relative_change(before["critical_ns"], after["critical_ns"]),
        "slowest_rank_change": relative_change(*slowest),
        "slowest_rank_ns": {"baseline": slowest[0], "candidate": slowest[1]},
    }
    return Finding(
        "totals_mislead",
        "warning",
        f"Table 1's total says {said} ({evidence['total_time_change']:+.1%}), what ranks wait for "
        f"says {meant}: critical MoE time {evidence['critical_change']:+.1%}, the busiest rank "
        f"{evidence['slowest_rank_change']:+.1%}; a total over ranks cannot see balance",
        evidence,
    )


def balance(baseline: Run, candidate: Run) -> Finding | None:
    """What ranks wait for in MoE kernels: the slowest of each cell, mean and excess."""
    before, after = _balance(baseline), _balance(candidate)
    if before is None or after is None:
        return None
    change = relative_change(before["critical_ns"], after["critical_ns"]) or 0.0
    return Finding(
        "balance",
        "info",
        f"critical MoE time (the slowest rank of each cell) went from "
        f"{before['critical_ns'] / 1e6:,.1f} to {after['critical_ns'] / 1e6:,.1f} ms "
        f"({change:+.1%}); the part that balance could save from "
        f"{before['excess_ns'] / 1e6:,.1f} to {after['excess_ns'] / 1e6:,.1f} ms",
        {"baseline": before, "candidate": after, "critical_change": change},
    )


def waiting(baseline: Run, candidate: Run) -> Finding | None:
    """How much of communication is waiting for the last rank."""
    parts = {"baseline": _waiting(baseline), "candidate": _waiting(candidate)}
    known = {name: part for name, part in parts.items() if part}
    if not known:
        return None
    shares = " and ".join(
        f"{part['wait_ratio']:.1%} of the {name}'s" for name, part in known.items()
    )
    return Finding(
        "waiting",
        "info",
        f"{shares} communication time is waiting for the last rank, not transfer",
        parts,
    )


def _balance(run: Run) -> dict[str, Any] | None:
    """Return the sums over cells; None where ranks cannot be paired."""
    if run.cells is None or run.cells.is_empty() or run.cells["ranks"].max() == 1:
        return None
    row = imbalance(run.cells).row(0, named=True)
    return {key: row[key] for key in ("cells", "critical_ns", "mean_ns", "excess_ns")}


def _slowest_rank_ns(run: Run) -> int:
    """Return the largest sum of MoE time of any rank."""
    assert run.moe_events is not None  # noqa: S101 - cells exist only with events
    ranks = run.moe_events.group_by("global_pid", "device_id").agg(pl.col("dur_ns").sum())
    return int(ranks["dur_ns"].max())  # type: ignore[arg-type]


def _waiting(run: Run) -> dict[str, Any] | None:
    """Return sums over the communication kernels that could be paired across ranks."""
    if run.collective_events is None:
        return None
    matched = run.collective_events.filter("is_matched")
    if matched.is_empty():
        return None
    wait, transfer, total = (int(matched[c].sum()) for c in ("wait_ns", "transfer_ns", "dur_ns"))
    return {
        "wait_ns": wait,
        "transfer_ns": transfer,
        "total_ns": total,
        "wait_ratio": wait / total if total else 0.0,
        "matched": matched.height,
    }


def eplb_activity(baseline: Run, candidate: Run) -> Finding | None:
    """What shows EPLB at work in each arm: its map kernel, and transfers of weights."""
    parts = {"baseline": _eplb(baseline), "candidate": _eplb(candidate)}
    before, after = (part["map_launches"] > 0 for part in parts.values())
    if before and not after:
        return Finding(
            "eplb_activity",
            "error",
            "EPLB's kernels run in the baseline and not in the candidate: are the arms swapped?",
            parts,
        )
    if after and not before:
        sent = parts["candidate"]["send_recv_launches"]
        moved = (
            f"{sent:,} SendRecv kernels, which move weights when experts are rearranged "
            f"({parts['candidate']['send_recv_ns'] / 1e6:,.1f} ms over all GPUs)"
            if sent
            else "no rearrangement falls into the capture (no SendRecv kernel)"
        )
        message = f"EPLB is at work in the candidate alone: {moved}"
        return Finding("eplb_activity", "info", message, parts)
    where = "both arms" if before else "neither arm"
    return Finding(
        "eplb_activity",
        "warning",
        f"{where} shows EPLB at work (its map kernel is there from vLLM 0.20.2 on): the "
        "comparison may not be of EPLB",
        parts,
    )


def _eplb(run: Run) -> dict[str, int]:
    """Return launches of EPLB's map kernel, and launches and time of NCCL's SendRecv."""
    maps = run.kernels.filter(pl.col("class") == EPLB)
    sent = run.kernels.filter((pl.col("class") == COLLECTIVE) & (pl.col("role") == "send_recv"))
    return {
        "map_launches": int(maps["launches"].sum()),
        "send_recv_launches": int(sent["launches"].sum()),
        "send_recv_ns": int(sent["total_ns"].sum()),
    }


# A collective's share of NCCL time that moves by less is the same traffic.
_NOTABLE_SHIFT = 0.05


def communication_mix(baseline: Run, candidate: Run) -> Finding | None:
    """Which collective NCCL's time is made of, and whether the arms use others."""
    mixes = [
        {row["collective"]: row for row in nccl_mix(run.kernels).to_dicts()}
        for run in (baseline, candidate)
    ]
    if not all(mixes):
        return None
    parts = dict(zip(("baseline", "candidate"), mixes, strict=True))
    largest = next(iter(mixes[0]))
    shares = [_share(mix, largest) for mix in mixes]
    message = f"{shares[0]:.1%} and {shares[1]:.1%} of NCCL time is {largest}"
    moved = [
        f"{name} went from {_ms(mixes[0], name)} to {_ms(mixes[1], name)} ms"
        for name in dict.fromkeys([*mixes[0], *mixes[1]])
        if name != largest
        and abs(_share(mixes[1], name) - _share(mixes[0], name)) >= _NOTABLE_SHIFT
    ]
    if moved:
        message += f"; the arms communicate differently: {', '.join(moved)}"
    return Finding("communication_mix", "info", message, parts)


def _share(mix: dict[str, Any], name: str) -> float:
    return float(mix[name]["time_ratio"]) if name in mix else 0.0


def _ms(mix: dict[str, Any], name: str) -> str:
    return f"{mix[name]['total_ns'] / 1e6:,.1f}" if name in mix else "0"


def cuda_graph_mode(baseline: Run, candidate: Run) -> Finding | None:
    """CUDA graphs were recorded as a whole in an arm, so kernels are missing from it."""
    arms = {"the baseline": baseline, "the candidate": candidate}
    found = [hidden_kernels(n, str(run.path), *run.graph_launches) for n, run in arms.items()]
    hidden = [finding for finding in found if finding]
    if len(hidden) < 2:
        return hidden[0] if hidden else None
    evidence = {"baseline": hidden[0].evidence, "candidate": hidden[1].evidence}
    return replace(hidden[0], message=_GRAPHS.format(where="both arms"), evidence=evidence)


_GRAPHS = (
    "CUDA graphs were recorded as a whole in {where}: the kernels inside them are in no number "
    "here; capture again with --cuda-graph-trace=node"
)


def hidden_kernels(where: str, source: str, launches: int, total_ns: int) -> Finding | None:
    """CUDA graphs were recorded as a whole, so their kernels are missing."""
    if not launches:
        return None
    evidence = {"source": source, "graph_launches": launches, "graph_total_ns": total_ns}
    return Finding("cuda_graph_mode", "error", _GRAPHS.format(where=where), evidence)


def single_run(_baseline: Run, _candidate: Run) -> Finding | None:
    """One run an arm says nothing about how runs differ from one another."""
    return Finding(
        "single_run",
        "warning",
        "one run an arm: no estimate of noise, so no verdict here says that a difference is real; "
        "five runs an arm, taken in turn, would",
        {"baseline_runs": 1, "candidate_runs": 1},
    )


def bookkeeping_allreduce(baseline: Run, candidate: Run) -> Finding | None:
    """AllReduce of 32-bit integers carries counts, not the model's activations."""
    arms = {"baseline": baseline, "candidate": candidate}
    totals = {name: run.communication.row(0, named=True) for name, run in arms.items()}
    if not any(total["bookkeeping_allreduce_ns"] for total in totals.values()):
        return None
    parts = {
        name: {
            "bookkeeping_ns": total["bookkeeping_allreduce_ns"],
            "allreduce_total_ns": total["allreduce_total_ns"],
            "ratio": _ratio(total["bookkeeping_allreduce_ns"], total["allreduce_total_ns"]),
        }
        for name, total in totals.items()
    }
    shares = " and ".join(
        f"{part['ratio']:.1%} of the {name}'s" for name, part in parts.items() if part["ratio"]
    )
    return Finding(
        "bookkeeping_allreduce",
        "info",
        f"{shares} AllReduce time is u32: token and load counts that wait for the slowest rank, "
        "not model traffic",
        parts,
    )


def other_allreduce(baseline: Run, candidate: Run) -> Finding | None:
    """All-reduces by kernels outside NCCL are in neither communication row of Table 1."""
    arms = {"baseline": baseline, "candidate": candidate}
    totals = {
        name: int(run.communication["other_allreduce_total_ns"].item())
        for name, run in arms.items()
    }
    if not any(totals.values()):
        return None
    functions = sorted(
        {
            function
            for run in arms.values()
            for function in run.kernels.filter(
                (pl.col("class") == COLLECTIVE)
                & (pl.col("role") == "all_reduce")
                & (pl.col("backend") != "nccl")
            )["function"]
        }
    )
    return Finding(
        "other_allreduce",
        "warning",
        f"all-reduces outside NCCL took {totals['baseline'] / 1e6:,.1f} and "
        f"{totals['candidate'] / 1e6:,.1f} ms (baseline and candidate), in neither row of the "
        f"table: {', '.join(functions)}",
        {
            "baseline_ns": totals["baseline"],
            "candidate_ns": totals["candidate"],
            "functions": functions,
        },
    )


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


RULES = (
    same_file,
    lost_device,
    cuda_graph_mode,
    totals_mislead,
    balance,
    waiting,
    unequal_work,
    single_run,
    other_allreduce,
    eplb_activity,
    communication_mix,
    bookkeeping_allreduce,
    unclassified_kernels,
)


def _change_of(baseline: Run, candidate: Run, statistic: str) -> float:
    """Return the change of a statistic of MoE kernels; 0 where the baseline's is 0."""
    before, after = (run.durations[statistic].item() for run in (baseline, candidate))
    return relative_change(before, after) or 0.0


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
