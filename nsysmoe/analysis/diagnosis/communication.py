"""What communication is made of: waiting, bookkeeping, and the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from nsysmoe.analysis.reading.arrivals import arrivals_text
from nsysmoe.classes import COLLECTIVE
from nsysmoe.findings import Finding
from nsysmoe.metrics.kernel_time.communication import nccl_mix, purposes
from nsysmoe.metrics.kernel_time.conservation import conservation
from nsysmoe.metrics.kernel_time.waits import waits_with_phases

if TYPE_CHECKING:
    from nsysmoe.analysis.reading.run import Run


# A collective's share of NCCL time that moves by less is the same traffic.
_NOTABLE_SHIFT = 0.05
# The share of waiting from which on the host is what to mend.
_MOSTLY = 0.75


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
    ).explaining(_exposed_wait_ns(baseline, candidate))


def last_to_arrive(baseline: Run, candidate: Run) -> Finding | None:
    """Whether it is always the same rank that the others wait for."""
    parts = {
        name: run.schedule and run.schedule.arrivals
        for name, run in (("baseline", baseline), ("candidate", candidate))
    }
    known = {name: part for name, part in parts.items() if part}
    if not known:
        return None
    told = "; ".join(f"{name}: {arrivals_text(part)}" for name, part in known.items())
    return Finding("last_to_arrive", "info", f"who arrives last at collectives: {told}", parts)


def waiting_explained(baseline: Run, candidate: Run) -> Finding | None:
    """How much of the waiting unequal MoE work explains, and of its change."""
    parts = {
        name: conservation(run.paired_cells, run.schedule.collectives).to_dicts()
        for name, run in (("baseline", baseline), ("candidate", candidate))
        if run.schedule is not None and run.paired_cells.height
    }
    if len(parts) < 2 or not all(parts.values()):
        return None
    sums = {
        name: {key: sum(row[key] for row in rows) for key in _CONSERVED}
        for name, rows in parts.items()
    }
    change = {key: sums["candidate"][key] - sums["baseline"][key] for key in _CONSERVED}
    before, after = (sums[name] for name in ("baseline", "candidate"))
    return Finding(
        "waiting_explained",
        "info",
        f"of {before['wait_ns'] / 1e6:,.1f} and {after['wait_ns'] / 1e6:,.1f} ms of waiting over "
        f"all ranks, unequal MoE time makes {before['unequal_ns'] / 1e6:,.1f} and "
        f"{after['unequal_ns'] / 1e6:,.1f} ms (ranks x (slowest - mean)); waiting changed by "
        f"{change['wait_ns'] / 1e6:+,.1f} ms, of which {change['unequal_ns'] / 1e6:+,.1f} ms is "
        f"balance and {change['unexplained_ns'] / 1e6:+,.1f} ms is unexplained by MoE kernels",
        {"phases": parts, "change": change},
    )


def waiting_causes(baseline: Run, candidate: Run) -> Finding | None:
    """What made the last rank late: experts, other kernels, or the host."""
    parts = {
        name: waits_with_phases(run.schedule.waits, run.explained_across)
        for name, run in (("baseline", baseline), ("candidate", candidate))
        if run.schedule is not None and run.schedule.waits.height
    }
    if not parts:
        return None
    told = " and ".join(
        f"{part['host'] / part['wait_ns']:.0%} of the {name}'s {_told_ms(part)} ms is "
        f"the host launching late, {part['moe'] / part['wait_ns']:.0%} MoE kernels"
        for name, part in parts.items()
        if part["wait_ns"]
    )
    hosts = [part["host"] / part["wait_ns"] for part in parts.values() if part["wait_ns"]]
    if not hosts:
        return None
    advice = (
        "; balancing experts cannot shorten it, launching faster can (CUDA graphs)"
        if min(hosts) > _MOSTLY
        else ""
    )
    return Finding(
        "waiting_causes",
        "warning" if advice else "info",
        f"why ranks waited for the last one: {told}{advice}",
        parts,
    ).explaining(_exposed_wait_ns(baseline, candidate))


def waiting_uncertainty(baseline: Run, candidate: Run) -> Finding | None:
    """How far waiting may be off where ranks are told by clocks of several files."""
    runs = {"baseline": baseline, "candidate": candidate}
    parts = {name: run.clock_uncertainty() for name, run in runs.items() if run.across is not None}
    if not any(part["wait_ns"] for part in parts.values()):
        return None
    told = " and ".join(
        f"the {name}'s {(runs[name].values['wait_ns'] or 0) / 1e6:,.1f} ms by up to "
        f"{part['wait_ns'] / 1e6:,.1f} ms (and {(runs[name].values['transfer_ns'] or 0) / 1e6:,.1f}"
        f" ms of transfer by up to {part['transfer_ns'] / 1e6:,.1f})"
        for name, part in parts.items()
    )
    limit = sum(part["wait_ns"] for part in parts.values())
    return Finding(
        "waiting_uncertainty",
        "info",
        f"waiting over all ranks may be off by what clocks of files agree to: {told}; a change of "
        f"{limit / 1e6:,.1f} ms or less is within noise, whatever its interval over steps or runs",
        {**parts, "limit_ns": limit},
    )


def _told_ms(part: dict[str, Any]) -> str:
    unsure = part.get("wait_uncertainty_ns")
    return f"{part['wait_ns'] / 1e6:,.1f}" + (f" ± {unsure / 1e6:,.1f}" if unsure else "")


_CONSERVED = ("wait_ns", "unequal_ns", "unexplained_ns")


def _exposed_wait_ns(*runs: Run) -> float:
    return max(run.values["exposed_wait_ns"] or 0.0 for run in runs)


def _purposes(baseline: Run, candidate: Run) -> dict[str, Any]:
    runs = {"baseline": baseline, "candidate": candidate}
    return {name: purposes(run.kernels).to_dicts() for name, run in runs.items()}


def _waiting(run: Run) -> dict[str, Any] | None:
    """Return sums over the communication kernels that could be paired across ranks."""
    if run.collectives is None:
        return None
    matched = run.collectives.filter("is_matched")
    if matched.is_empty():
        return None
    wait, transfer, total = (int(matched[c].sum()) for c in ("wait_ns", "transfer_ns", "dur_ns"))
    return {
        "wait_ns": wait,
        "transfer_ns": transfer,
        "total_ns": total,
        "wait_ratio": wait / total if total else 0.0,
        "matched": int(matched["launches"].sum()),
    }


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
    message += f"; by purpose: {_told(baseline)} and {_told(candidate)}"
    evidence = {**parts, "purposes": _purposes(baseline, candidate)}
    return Finding("communication_mix", "info", message, evidence)


def _told(run: Run) -> str:
    """Return the purposes of a run's communication, largest first."""
    totals: dict[str, float] = {}
    for row in purposes(run.kernels).iter_rows(named=True):
        totals[row["purpose"]] = totals.get(row["purpose"], 0.0) + row["time_ratio"]
    return ", ".join(f"{name} {share:.1%}" for name, share in totals.items())


def _share(mix: dict[str, Any], name: str) -> float:
    return float(mix[name]["time_ratio"]) if name in mix else 0.0


def _ms(mix: dict[str, Any], name: str) -> str:
    return f"{mix[name]['total_ns'] / 1e6:,.1f}" if name in mix else "0"


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


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
