"""What a comparison comes to, a sentence a question: these lead every output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nsysmoe.analysis.comparing.comparison import Change, Sentence
from nsysmoe.analysis.diagnosis.comparability import not_comparable, unequal_work
from nsysmoe.analysis.one_trace.bound import bound_rows, bound_text, spoken_phase
from nsysmoe.findings import Finding
from nsysmoe.metrics.statistics.uncertainty import runs_needed

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from nsysmoe.analysis.comparing.comparison import Part
    from nsysmoe.analysis.reading.arm import Arm
    from nsysmoe.metrics.statistics.interval import Interval


def verdict_of(
    baseline: Arm,
    candidate: Arm,
    metrics: Sequence[Change],
    undistorted: Sequence[Change],
    parts: Sequence[Part],
) -> tuple[Sentence, ...]:
    """Say whether the work is the same, balance improved, wall time improved, and how sure."""
    whole = {change.metric: change for change in metrics}
    without = {change.metric: change for change in undistorted}
    bounds = _bounds(baseline, candidate)
    same_work = _same_work(baseline, candidate)
    if same_work.answer == "not_comparable":
        return (*bounds, _overall(baseline, candidate, [same_work]), same_work)
    is_quick = baseline.representative.moe_totals is not None and (
        baseline.representative.schedule is None
    )
    found = [
        same_work,
        _balance(whole["critical_moe_ns"], whole["excess_moe_ns"], parts),
        _wall_time(whole["wall_time_ns"], without.get("wall_time_ns"), is_quick=is_quick),
        _noise(whole, _runs_for_one_percent(baseline, candidate)),
        _totals(whole),
    ]
    kept = [sentence for sentence in found if sentence]
    return (*bounds, _overall(baseline, candidate, kept), *kept)


def _bounds(baseline: Arm, candidate: Arm) -> tuple[Sentence, ...]:
    """Say what the time is bound by: it comes first, since balance may have nothing to shorten."""
    import polars as pl  # noqa: PLC0415

    known = [causes for arm in (baseline, candidate) if (causes := arm.time_causes)]
    rows = [found for causes in known if (found := bound_rows(pl.concat(causes), "phase"))]
    if len(rows) < 2:
        return ()
    evidence = {
        side: {row["phase"]: {"bound": row["bound"], "shares": row["shares"]} for row in found}
        for side, found in zip(("baseline", "candidate"), rows, strict=True)
    }
    text = bound_text(rows, (baseline.label, candidate.label))
    return (Sentence("bound", rows[0][0]["bound"], f"{text}.", evidence),)


def _overall(baseline: Arm, candidate: Arm, sentences: Sequence[Sentence]) -> Sentence:
    answers = {part.question: part.answer for part in sentences}
    told = ", ".join(
        f"{name} {answers[question].replace('_', ' ')}"
        for question, name in (("balance", "critical MoE time"), ("wall_time", "wall time"))
        if question in answers
    )
    is_misleading = "; Table 1's total misleads" if "totals" in answers else ""
    # Of one run each, nobody knows what another pair would show.
    is_alone = len(baseline.runs) == len(candidate.runs) == 1
    is_judged = answers.get("noise", "unknown") != "unknown"
    by = ", by the steps of one run each" if told and is_alone and is_judged else ""
    return Sentence(
        "overall",
        answers.get("balance", "not_comparable"),
        f"{candidate.label} against {baseline.label}: {told or 'not comparable'}{by}"
        f"{is_misleading}.",
        {},
    )


def _same_work(baseline: Arm, candidate: Arm) -> Sentence:
    runs = baseline.representative, candidate.representative
    finding = unequal_work(*runs)
    evidence = {} if finding is None else finding.evidence
    launches = [run.launches for run in runs]
    if reason := not_comparable(baseline, candidate):
        sentence = f"The arms cannot be compared: {reason}."
        return Sentence("same_work", "not_comparable", sentence, evidence)
    if finding is None:
        sentence = f"The work is the same: {launches[0]:,} MoE launches each."
        return Sentence("same_work", "yes", sentence, evidence)
    change = (launches[1] / launches[0] - 1) if launches[0] else 0.0
    told = (
        f"{launches[0]:,} and {launches[1]:,} MoE launches ({change:+.2%})"
        if launches[0] != launches[1]
        else f"{launches[0]:,} MoE launches each, in other steps or of other tokens"
    )
    return Sentence("same_work", "nearly", f"The work is nearly the same: {told}.", evidence)


def _balance(critical: Change, excess: Change, parts: Sequence[Part]) -> Sentence:
    if critical.change is None:
        return Sentence(
            "balance",
            "unknown",
            "Whether balance improved cannot be told: it takes raw events of two ranks or more "
            "that launched the same MoE kernels.",
            {},
        )
    phases = {part.key: _phase_balance(part) for part in parts if part.kind == "phase"}
    known = {phase: told for phase, told in phases.items() if told}
    by_phase = (
        f"; by phase {', '.join(f'{spoken_phase(p)} {told}' for p, told in known.items())}"
        if known
        else ""
    )
    answer = _answer(critical)
    return Sentence(
        "balance",
        answer,
        f"{_OPENING['balance'][answer]}: critical MoE time went from {_from_to(critical)}"
        f"{by_phase}; its excess over perfect balance from {_ms(excess.baseline)} to "
        f"{_ms(excess.candidate)} ms.",
        {"critical_change": critical.change, "excess_change": excess.change, "phases": known},
    )


def _phase_balance(part: Part) -> str | None:
    """Return the change of a phase's critical time, and slowest / mean, which work cancels from."""
    found = {change.metric: change for change in part.metrics}
    critical, excess = found["critical_moe_ns"], found["excess_moe_ns"]
    if critical.change is None or excess.baseline is None or excess.candidate is None:
        return None
    ratios = [
        whole / (whole - over) if whole and whole > over else 1.0
        for whole, over in (
            (critical.baseline or 0.0, excess.baseline),
            (critical.candidate or 0.0, excess.candidate),
        )
    ]
    return f"{critical.change:+.1%} (slowest / mean {ratios[0]:.3f} to {ratios[1]:.3f})"


def _wall_time(wall: Change, without: Change | None, *, is_quick: bool) -> Sentence:
    if wall.change is None:
        why = "--quick leaves it out" if is_quick else "a summary of kernels does not hold it"
        return Sentence("wall_time", "unknown", f"Wall time cannot be told: {why}.", {})
    answer = _answer(wall)
    sentence = f"{_OPENING['wall_time'][answer]}: {_from_to(wall)}"
    evidence: dict[str, Any] = {"wall_change": wall.change}
    if without is not None and without.change is not None:
        usual = _answer(without)
        sentence += (
            f"; distorted steps taken as usual ones, {usual.replace('_', ' ')}: {_from_to(without)}"
        )
        evidence |= {"undistorted_wall_change": without.change, "undistorted": usual}
    return Sentence("wall_time", answer, f"{sentence}.", evidence)


def _from_to(change: Change) -> str:
    return (
        f"{_ms(change.baseline)} to {_ms(change.candidate)} ms ({change.change:+.1%}"
        f"{_interval(change.interval)})"
    )


def _noise(whole: dict[str, Change], runs: int | None) -> Sentence:
    keys = ("critical_moe_ns", "wall_time_ns", "total_time_ns")
    intervals = {key: interval for key in keys if (interval := whole[key].interval)}
    if not intervals:
        return Sentence(
            "noise",
            "unknown",
            "Whether that is beyond noise cannot be told: it takes three runs an arm, or one run "
            "each with steps to resample.",
            {},
        )
    beyond = [_NAMES[key] for key, interval in intervals.items() if interval.excludes_zero()]
    within = [_NAMES[key] for key in intervals if _NAMES[key] not in beyond]
    first = next(iter(intervals.values()))
    unit = f"{first.baseline_n} and {first.candidate_n} {first.over}"
    caveat = (
        " of one run an arm, so another pair of runs may differ by more; steps that occur once "
        "count as they are"
        if first.over == "steps"
        else ""
    )
    told = " and ".join(
        f"{_listed(names)} {verb}"
        for names, verb in ((beyond, "beyond noise"), (within, "within it"))
        if names
    )
    answer = "beyond" if beyond and not within else "within" if not beyond else "partly"
    evidence: dict[str, Any] = {
        key: [interval.low, interval.high] for key, interval in intervals.items()
    }
    sentence = f"By {unit}{caveat}: {told}"
    if runs is not None:
        evidence["runs_for_1_percent"] = runs
        sentence += f"; to show 1 % of wall time would take {runs:,} runs an arm"
    return Sentence("noise", answer, f"{sentence}.", evidence)


def _runs_for_one_percent(baseline: Arm, candidate: Arm) -> int | None:
    """Return how many runs an arm would show a change of wall time by 1 %, by their spread."""
    walls = [[run["wall_time_ns"] for run in arm.values] for arm in (baseline, candidate)]
    if min(len(found) for found in walls) < 2 or any(None in found for found in walls):
        return None
    return runs_needed(walls[0], walls[1], 0.01)  # type: ignore[arg-type]


def _totals(whole: dict[str, Change]) -> Sentence | None:
    """Say where Table 1's total points away from what ranks wait for, or does not show it."""
    if not (told := _misled(whole)):
        return None
    busiest = whole["busiest_rank_ns"].change
    return Sentence(
        "totals",
        "mislead",
        f"Table 1's total {told}: it sums over ranks and cannot see that the slowest rank, which "
        f"everybody waits for, went {busiest:+.1%}.",
        {
            "total_change": whole["total_time_ns"].change,
            "critical_change": whole["critical_moe_ns"].change,
            "busiest_rank_change": busiest,
        },
    )


def totals_mislead(metrics: Sequence[Change]) -> Finding | None:
    """Table 1's total does not show, or points away from, a change of what ranks wait for.

    Args:
        metrics: What ``judgement.judge`` returned.
    """
    whole = {change.metric: change for change in metrics}
    if not (told := _misled(whole)):
        return None
    critical, busiest = whole["critical_moe_ns"], whole["busiest_rank_ns"]
    return Finding(
        "totals_mislead",
        "warning",
        f"Table 1's total {told}, and critical MoE time went {critical.change:+.1%}, the busiest "
        f"rank {busiest.change:+.1%}: a total over ranks cannot see balance",
        {
            "total_time_change": whole["total_time_ns"].change,
            "critical_change": critical.change,
            "slowest_rank_change": busiest.change,
            "slowest_rank_ns": {"baseline": busiest.baseline, "candidate": busiest.candidate},
        },
    ).explaining(abs((critical.candidate or 0) - (critical.baseline or 0)))


def _misled(whole: dict[str, Change]) -> str | None:
    """Return what the total tells of a change that ranks wait for; None where it tells enough.

    A change within noise, or of which no noise is known, misleads nobody.
    """
    total, critical = whole["total_time_ns"], whole["critical_moe_ns"]
    if None in {total.change, whole["busiest_rank_ns"].change}:
        return None
    if _answer(critical) not in {"better", "worse"}:
        return None
    if _answer(total) == "same":
        return f"shows nothing ({total.change:+.1%})"
    if _answer(total) not in {"better", "worse"}:
        return f"shows nothing beyond noise ({total.change:+.1%})"
    if _answer(total) == _answer(critical):
        return None
    return f"points the other way ({total.change:+.1%})"


def _answer(change: Change) -> str:
    """Return the verdict; without an interval a change is not judged."""
    if change.verdict in {"better", "worse"} and change.interval is None:
        return "not_judged"
    return change.verdict or "unknown"


_NAMES = {
    "critical_moe_ns": "critical MoE time",
    "wall_time_ns": "wall time",
    "total_time_ns": "the MoE total",
}
_OPENING = {
    "balance": {
        "better": "What ranks wait for in MoE kernels fell",
        "worse": "What ranks wait for in MoE kernels rose",
        "same": "What ranks wait for in MoE kernels stayed the same",
        "within_noise": "What ranks wait for in MoE kernels changed within noise",
        "not_judged": "What ranks wait for in MoE kernels changed, by how much noise is unknown",
        "unknown": "What ranks wait for in MoE kernels",
    },
    "wall_time": {
        "better": "Wall time improved",
        "worse": "Wall time became worse",
        "same": "Wall time stayed the same",
        "within_noise": "Wall time changed within noise",
        "not_judged": "Wall time changed, by how much noise is unknown",
        "unknown": "Wall time",
    },
}


def _ms(value: float | None) -> str:
    return "n/a" if value is None else f"{value / 1e6:,.1f}"


def _interval(interval: Interval | None) -> str:
    if interval is None:
        return ""
    return f", {interval.level:.0%} interval {interval.low:+.1%} to {interval.high:+.1%}"


def _listed(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
