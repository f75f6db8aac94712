"""Whether a run counts: what its trace, its record and its log must hold."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from nsysmoe.capture.preflight import Check
from nsysmoe.capture.spec import saved_arms
from nsysmoe.capture.versions import Version

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from nsysmoe.trace import Trace

# At its start vLLM tries a rearrangement, with "(profile)" in its words.
_MOVED = re.compile(r"Rearranged experts(?! ?\(profile\))")
_LARGEST_LOG = 64 << 20
_NEEDED = ("duckdb", "polars", "pyarrow", "adbc_driver_sqlite")


@dataclass(frozen=True)
class Expected:
    """What a run was to be.

    Attributes:
        ranks: GPUs that share the experts.
        is_balanced: Whether EPLB was on.
        rearrange: Where a rearrangement was asked for.
        vllm: Version that ran.
        allows_code_loads: Whether a run counts into whose range code was loaded.
    """

    ranks: int
    is_balanced: bool
    rearrange: str
    vllm: str
    allows_code_loads: bool = False


@dataclass(frozen=True)
class Seen:
    """What a run holds.

    Attributes:
        ranks: Processes and GPUs that ran kernels.
        moe_ranks: Those of them that ran MoE kernels.
        launches: MoE kernels that ran.
        code_loads: Calls that loaded code.
        has_map_kernel: Whether EPLB's own kernels ran.
        rearrangements: Times that weights moved between ranks inside the range.
        logged: Rearrangements that the engine's log tells of, from start to end.
        counted: Rearrangements ``before`` and ``inside`` by EPLB's counter; None where unknown.
        moving: EPLB's counter and its interval, where experts moved on as the run ended.
    """

    ranks: int
    moe_ranks: int
    launches: int
    code_loads: int
    has_map_kernel: bool
    rearrangements: int
    logged: int
    counted: dict[str, int] | None
    moving: tuple[int, int] | None


def can_verify() -> bool:
    """Tell whether what reads traces is installed here."""
    return all(find_spec(name) is not None for name in _NEEDED)


def look(folder: Path) -> Seen:
    """Read what a run holds.

    Raises:
        NsysmoeError: Its trace cannot be read.
    """
    from nsysmoe.trace import open_trace  # noqa: PLC0415 - needs what a GPU node may lack

    with open_trace(folder / "trace.sqlite") as trace:
        if not trace.has_kernels():
            return Seen(0, 0, 0, 0, False, 0, *_beside(folder))
        return _look(trace, folder)


def _look(trace: Trace, folder: Path) -> Seen:
    moe = trace.frame("moe_kernels", ("global_pid", "process_id", "device_id"))
    classes = trace.frame("kernel_classes", ("class",))["class"]
    return Seen(
        trace.frame("devices", ("device_id",)).height,
        moe.unique().height,
        moe.height,
        trace.frame("code_loads", ("start_ns",)).height,
        "eplb" in classes.to_list(),
        trace.frame("rearrangements", ("rearrangement",)).height,
        *_beside(folder),
    )


def _beside(folder: Path) -> tuple[int, dict[str, int] | None, tuple[int, int] | None]:
    """Return what log and record tell."""
    log = folder / "engine.log"
    text = ""
    if log.exists() and log.stat().st_size < _LARGEST_LOG:
        text = log.read_text(encoding="utf-8", errors="replace")
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    return len(_MOVED.findall(text)), record.get("rearrangements"), _moving(record)


def _moving(record: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return a counter that ran past its interval, or stands while experts move."""
    for state in record.get("eplb_after") or ():
        if state and state.get("is_moving", 0 < state["interval"] < state["step"]):
            return state["step"], state["interval"]
    return None


def judge(expected: Expected, seen: Seen) -> tuple[Check, ...]:
    """Judge one run; it counts where nothing fails."""
    found = [_ranks(expected, seen), _moe(seen), _code(expected, seen)]
    found.append(_balanced(expected, seen) if expected.is_balanced else _unbalanced(seen))
    if expected.is_balanced and expected.rearrange != "any":
        found.append(_placed(expected, seen))
    return tuple(found)


def _ranks(expected: Expected, seen: Seen) -> Check:
    said = f"{seen.moe_ranks} of {expected.ranks} ran MoE kernels, {seen.ranks} any kernels"
    if seen.moe_ranks == expected.ranks:
        return Check("ranks", "ok", said)
    return Check("ranks", "fail", said, "look at engine.log: were all ranks traced?")


def _moe(seen: Seen) -> Check:
    if seen.launches:
        return Check("MoE kernels", "ok", f"{seen.launches:,} launches")
    return Check("MoE kernels", "fail", "none", "is it a Mixture-of-Experts model?")


def _code(expected: Expected, seen: Seen) -> Check:
    if not seen.code_loads:
        return Check("code loads", "ok", "none inside the range")
    return Check(
        "code loads",
        "warn" if expected.allows_code_loads else "fail",
        f"{seen.code_loads} inside the range: something was compiled or first used there",
        "capture again, or add --allow-code-loads",
    )


def _balanced(expected: Expected, seen: Seen) -> Check:
    if seen.has_map_kernel:
        return Check("EPLB", "ok", "its kernels ran")
    if not Version.parse(expected.vllm).has("map_kernel") and seen.logged:
        return Check("EPLB", "ok", f"the log tells of {seen.logged} rearrangements")
    return Check("EPLB", "fail", "no sign of it", "look at engine.log")


def _unbalanced(seen: Seen) -> Check:
    if seen.has_map_kernel or seen.logged:
        return Check("EPLB", "fail", "it was on in the arm that is to have it off")
    return Check("EPLB", "ok", "no sign of it, as asked")


def _placed(expected: Expected, seen: Seen) -> Check:
    counted = seen.counted or {}
    if seen.moving is not None and expected.rearrange == "before":
        step, interval = seen.moving
        said = (
            f"experts still moved as the run ended, {step:,} steps after that began, "
            f"with one due every {interval:,}"
        )
        return Check("rearrangement", "fail", said, "a longer --eplb-interval, or --no-eplb-async")
    if expected.rearrange == "inside":
        inside = max(seen.rearrangements, counted.get("inside", 0))
        said = f"{inside} inside the range"
        fix = "another --eplb-interval moves it"
        return Check("rearrangement", "ok" if inside else "fail", said, "" if inside else fix)
    before = counted.get("before", seen.logged)
    if not before and seen.counted is None:
        # A server tells by its log alone, whose level is the user's.
        return Check("rearrangement", "warn", "the log does not tell whether one happened before")
    if not before:
        return Check("rearrangement", "fail", "none before the range", "shorten --eplb-interval")
    inside = max(seen.rearrangements, counted.get("inside", 0))
    if inside:
        return Check("rearrangement", "warn", f"{before} before the range, and {inside} inside")
    return Check("rearrangement", "ok", f"{before} before the range, none inside")


def judge_arm(arm: str, launches: Mapping[int, int]) -> Check:
    """Judge whether the runs of an arm did the same work, by their launches of MoE kernels."""
    counts = sorted(set(launches.values()))
    what = f"runs of {arm}"
    if len(counts) <= 1:
        return Check(what, "ok", f"{len(launches)} with {counts[0] if counts else 0:,} launches")
    said = f"MoE launches differ from run to run: {counts[0]:,} to {counts[-1]:,}"
    return Check(what, "warn", said)


def failed(checks: Sequence[Check]) -> list[Check]:
    """Return the checks that keep a run from counting."""
    return [check for check in checks if check.status == "fail"]


def expected_of(spec: Mapping[str, Any], arm: str, vllm: str) -> Expected:
    """Return what a run of a saved spec was to be."""
    saved = saved_arms(spec)[arm]
    layout = saved["layout"] or spec["layout"]
    return Expected(
        layout["tensor"] * layout["data"],
        saved["is_balanced"],
        spec["rearrange"],
        vllm,
        spec["allow_code_loads"],
    )
