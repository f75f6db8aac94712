"""The verdict on EPLB in sentences: whether, why, and when it would not help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nsysmoe.placement.activity import BLOCK_ROWS

if TYPE_CHECKING:
    from collections.abc import Callable

# Below that a gain is not worth the memory, the moves and the risk.
_WORTH = 0.01
# An imbalance of the run's own beyond chance: more than a tenth above it.
_NOISE = 1.1
# Of the experts of a GPU, in a step: nearly all are active, so balance changes nothing.
_NEARLY_ALL = 0.9
_HOST_BOUND = ("host", "sync", "latency")

Rows = dict[str, dict[str, Any]]
Times = dict[tuple[str, str], dict[str, Any]]


@dataclass(frozen=True)
class Grounds:
    """What the verdict stands on: attributes of an advice by their names, indexed.

    Attributes:
        shape: Its ``shape``.
        loads: Its ``loads`` by ``what``.
        times: Its ``times`` by ``phase`` and ``what``; empty without a trace.
        bounds: Its ``bound``.
        moves: Its ``moves``.
        single_runs: Its ``single_runs``.
        tax: Its ``tax``.
        rearrangements: Its ``rearrangements``.
    """

    shape: dict[str, Any]
    loads: Rows
    times: Times
    bounds: list[dict[str, Any]]
    moves: dict[str, int]
    single_runs: dict[str, Any] | None
    tax: dict[str, Any] | None
    rearrangements: list[dict[str, Any]]

    @property
    def is_reserved(self) -> bool:
        """Tell whether a gain in loads need be none in time: most steps are small, or not known."""
        small = self.shape["small_steps"]
        return not self.times and (small is None or 2 * small >= self.shape["steps"])

    @property
    def judged(self) -> dict[str, Any]:
        """EPLB's plan, in time where there is a trace, else in loads."""
        return self.times.get(("all", "eplb"), self.loads["eplb"])


def verdict(grounds: Grounds) -> tuple[bool, list[str], list[dict[str, Any]]]:
    """Say whether it is worth it, why, and what speaks against it.

    Returns:
        Whether; the sentences; the limits, each ``code``, ``applies``, ``sentence``.
    """
    judged = grounds.judged
    is_gain = bool(judged["saved"] >= _WORTH and judged["low"] is not None and judged["low"] > 0)
    is_late = bool(_of_host(grounds)[0])
    is_worth = is_gain and not is_late and not grounds.is_reserved
    reasons: tuple[Callable[[Grounds], str | None], ...] = (
        _of_reserve, _of_loads, _of_phases, _of_better_plans, _of_tax, _of_single_runs, _of_moving,
    )  # fmt: skip
    said = [text for reason in reasons if (text := reason(grounds)) is not None]
    limits: list[dict[str, Any]] = [
        {"code": code, "applies": applies, "sentence": sentence}
        for code, limit in _LIMITS.items()
        for applies, sentence in [limit(grounds)]
    ]
    against: list[str] = [limit["sentence"] for limit in limits if limit["applies"]]
    return (
        is_worth,
        [_lead(grounds, _start(grounds, is_gain=is_gain, is_late=is_late)), *said, *against],
        limits,
    )


def _start(grounds: Grounds, *, is_gain: bool, is_late: bool) -> str:
    if is_gain and is_late:
        # A gain in what nobody waits for is none yet.
        return "EPLB is not worth turning on yet for this workload"
    start = "EPLB is not worth turning on"
    if is_gain:
        start = f"EPLB {'may be' if grounds.is_reserved else 'is'} worth turning on"
    by = "" if grounds.times else " by loads, which are not time"
    return f"{start} for this workload{by}"


def _lead(grounds: Grounds, start: str) -> str:
    """Say by how much, with its uncertainty."""
    judged, shape = grounds.judged, grounds.shape
    what = "critical MoE time" if "saved_ns" in judged else "the busiest GPUs' load"
    verb, sign = ("would save", 1) if judged["saved"] >= 0 else ("would add", -1)
    amount = f" ({abs(judged['saved_ns']) / 1e6:,.2f} ms)" if "saved_ns" in judged else ""
    ends = [] if judged["low"] is None else sorted((sign * judged["low"], sign * judged["high"]))
    beside = f", 95 % interval {ends[0]:.1%} to {ends[1]:.1%}" if ends else ""
    return (
        f"{start}: its plan with {shape['redundant']} redundant experts on "
        f"{shape['gpus']} GPUs {verb} {abs(judged['saved']):.1%} of {what}{amount} on "
        f"{shape['steps']:,} {shape['unit']}s, each held out of its plan{beside}."
    )


def _of_reserve(grounds: Grounds) -> str | None:
    """Say why a gain in loads may be none in time."""
    if not grounds.is_reserved:
        return None
    shape = grounds.shape
    why = (
        f"A {shape['unit']} is no batch that ran"
        if shape["small_steps"] is None
        else f"In {shape['small_steps']:,} of {shape['steps']:,} steps an expert has fewer than "
        f"{BLOCK_ROWS} rows in the mean"
    )
    return (
        f"{why}: where batches are small, as in decode, time goes by the experts that are active "
        "and hardly by their load. What EPLB saves in time takes the experts that vLLM returned "
        "(.npz), the trace (--trace) and the record of the run (--run)."
    )


def _of_loads(grounds: Grounds) -> str:
    rows = grounds.loads
    now, eplb = rows["now"]["wasted_share"], rows["eplb"]["wasted_share"]
    return (
        f"Waiting for the busiest of {grounds.shape['gpus']} GPUs wastes {now:.1%} of their work "
        f"now, {eplb:.1%} with EPLB's plan, {rows['best']['wasted_share']:.1%} with the best one, "
        f"and {rows['uniform_router']['wasted_share']:.1%} if the router were perfectly uniform."
    )


def _of_phases(grounds: Grounds) -> str | None:
    """Say what each phase gains: decode pays for active experts, prefill for tokens."""
    parts = [
        f"{phase} {-row['saved']:+.1%}"
        for phase in ("decode", "prefill")
        if (row := grounds.times.get((phase, "eplb"))) is not None
    ]
    return f"Critical MoE time by phase: {', '.join(parts)}." if parts else None


def _of_better_plans(grounds: Grounds) -> str | None:
    """Name a plan that saves more than EPLB's, where that is worth a word."""
    plans: Rows = grounds.loads
    if grounds.times:
        plans = {what: row for (phase, what), row in grounds.times.items() if phase == "all"}
    name, text = max(
        (
            ("best", "one that balances loads better"),
            ("active", "one that balances what steps cost"),
        ),
        key=lambda each: plans[each[0]]["saved"],
    )
    if plans[name]["saved"] < plans["eplb"]["saved"] + _WORTH:
        return None
    where = "of critical MoE time" if grounds.times else "of the busiest GPUs' load"
    return (
        f"Another plan would do better: {text} changes {-plans[name]['saved']:+.1%} {where}, where "
        f"EPLB's changes {-plans['eplb']['saved']:+.1%} (`nsysmoe placement plan`)."
    )


def _of_tax(grounds: Grounds) -> str | None:
    """Say what redundant experts alone cost decode and gain prefill."""
    if grounds.tax is None:
        return None
    parts = [
        f"{row['phase']} {row['change_ns'] / 1e3:+,.2f} us a token "
        f"({row['active_before']:.2f} to {row['active_after']:.2f} active experts a GPU)"
        for row in grounds.tax["phases"]
    ]
    even = grounds.tax["break_even_prompt_tokens"]
    mix = (
        f"; both cancel out at {even:,.1f} prompt tokens for each generated one"
        if even is not None
        else "; no mix of prompt and generated tokens turns that around"
    )
    return (
        f"Against EPLB without them, the {grounds.shape['redundant']} redundant experts change "
        f"{', '.join(parts)}{mix}."
    )


def _of_single_runs(grounds: Grounds) -> str | None:
    """Say what a single pair of runs may measure, and how many would show the gain."""
    found = grounds.single_runs
    if found is None or not found["sd_ns"]:
        return None
    low, high = -found["high_ns"] / 1e6, -found["low_ns"] / 1e6
    many = (
        f"; about {found['runs']:,} runs of each show it"
        if found["runs"] is not None and found["runs"] > 1
        else ""
    )
    return (
        f"That is for the batches that ran. One run with EPLB against one without would measure "
        f"{low:+,.1f} to {high:+,.1f} ms (95 %), since {found['prompt_steps']} steps with prompts "
        f"may as well be more or fewer ({found['step_ns'] / 1e6:,.2f} ms each) and GPUs differ "
        f"beside their work{many}."
    )


def _of_moving(grounds: Grounds) -> str | None:
    """Say what moving experts takes: as the trace shows it, or how many there are."""
    moves = (
        f"EPLB's plan brings {grounds.moves['experts']:,} of {grounds.moves['slots']:,} experts to "
        "another GPU than now"
    )
    stalls = [row["stall_ns"] for row in grounds.rearrangements if row["stall_ns"] is not None]
    if not grounds.rearrangements:
        return (
            f"{moves}; no trace shows what rearranging costs (--rearranged)."
            if grounds.times
            else f"{moves}."
        )
    if not stalls:
        return f"{moves}; the rearrangement in the trace has no like steps to be set against."
    stall = sum(stalls) / len(stalls)
    row = grounds.times.get(("all", "eplb"))
    a_step = row["saved_ns"] / grounds.shape["steps"] if row else 0.0
    back = (
        f", which {a_step / 1e3:,.1f} us of critical MoE time a step pay back in "
        f"{max(0.0, stall) / a_step:,.0f} steps"
        if a_step > 0
        else ", which nothing pays back"
        if row
        else ""
    )
    return f"{moves}. Rearranging held up steps for {stall / 1e6:,.1f} ms each time{back}."


def _one_expert(grounds: Grounds) -> tuple[bool, str]:
    shape = grounds.shape
    return (
        shape["experts"] <= shape["gpus"] and not shape["redundant"],
        "One expert a GPU leaves nothing to rearrange without redundant experts.",
    )


def _of_chance(grounds: Grounds) -> tuple[bool, str]:
    rows = grounds.loads
    sentence = (
        "The imbalance is about what chance gives at this batch size, which no placement mends: "
        "larger batches would."
    )
    return rows["now"]["critical"] <= _NOISE * rows["uniform_router"]["critical"], sentence


def _of_active(grounds: Grounds) -> tuple[bool | None, str]:
    """Decode reads nearly every expert that a GPU holds: which ones those are does not matter."""
    held = grounds.shape["experts"] / grounds.shape["gpus"]
    active = grounds.shape["decode_active"]
    if active is None:
        return None, "Decode may read every expert of a GPU in each step: the log tells no steps."
    decode = grounds.times.get(("decode", "now"))
    whole = grounds.times.get(("all", "now"))
    share = decode["critical_ns"] / whole["critical_ns"] if decode and whole else None
    part = "" if share is None else f", {share:.0%} of critical MoE time,"
    sentence = (
        f"Decode{part} reads {active:.2f} of the {held:.2f} experts that a GPU holds in each "
        "step, whichever they are: no placement makes that fewer, redundant experts make it more."
    )
    return active >= _NEARLY_ALL * held, sentence


def _of_host(grounds: Grounds) -> tuple[bool | None, str]:
    """MoE time is not what the run waits for."""
    if not grounds.bounds:
        return None, "The time may be bound by the host, not by experts: that takes a trace."
    late = sum(row["window_ns"] for row in grounds.bounds if row["bound"] in _HOST_BOUND)
    whole = sum(row["window_ns"] for row in grounds.bounds)
    share = late / whole if whole else 0.0
    sentence = (
        f"{share:.0%} of the time is bound by the host, not by experts: wall time will hardly "
        "follow until launches are faster (CUDA graphs)."
    )
    return share >= 0.5, sentence


# When EPLB would not help, whatever loads say.
_LIMITS: dict[str, Callable[[Grounds], tuple[bool | None, str]]] = {
    "one_expert_a_gpu": _one_expert,
    "within_chance": _of_chance,
    "active_experts": _of_active,
    "host_bound": _of_host,
}
