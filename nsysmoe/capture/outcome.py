"""What became of a capture, run by run, and verifying one that was made elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nsysmoe.capture import keep, verify
from nsysmoe.capture.preflight import Check
from nsysmoe.errors import CaptureError, NsysmoeError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Say = Callable[[str], None]


@dataclass
class Result:
    """What became of one run.

    Attributes:
        arm: Its name.
        number: Within its arm.
        folder: Where it is, relative to the capture's folder.
        status: ``complete``, ``unverified`` (whole, what reads traces is missing here),
            ``failed``, or ``missing``.
        reason: Why it failed.
        checks: What was verified.
        launches: MoE kernels of its trace; None where that was not read.
        wall_s: What making it took.
    """

    arm: str
    number: int
    folder: str
    status: str = "missing"
    reason: str = ""
    checks: tuple[Check, ...] = ()
    launches: int | None = None
    wall_s: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {**self.__dict__, "checks": [check.to_dict() for check in self.checks]}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Result:
        """Build a result from what ``to_dict`` returned."""
        checks = tuple(Check(**check) for check in values["checks"])
        return cls(**{**values, "checks": checks})

    @property
    def counts(self) -> bool:
        """Tell whether comparisons may use it."""
        return self.status in {"complete", "unverified"}


@dataclass
class Outcome:
    """A capture: its runs, and whether those of an arm did the same work."""

    results: list[Result]
    arms: tuple[Check, ...] = ()

    @property
    def complete(self) -> int:
        """Runs that count."""
        return sum(result.counts for result in self.results)

    @property
    def is_whole(self) -> bool:
        """Tell whether every run counts."""
        return self.complete == len(self.results)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "is_whole": self.is_whole,
            "runs": [result.to_dict() for result in self.results],
            "arms": [check.to_dict() for check in self.arms],
        }


def verify_run(place: Path, spec: dict[str, Any], result: Result) -> None:
    """Look at one run; a trace that cannot be read is a check that failed."""
    try:
        seen = verify.look(place)
    except NsysmoeError as error:
        result.checks = (Check("trace", "fail", str(error)),)
        return
    expected = verify.expected_of(spec, result.arm, spec["vllm"])
    result.status, result.launches = "complete", seen.launches
    result.checks = (*verify.judge(expected, seen), *keep_routing(place, result))


def keep_routing(place: Path, result: Result) -> tuple[Check, ...]:
    """Write the routing in the form of all logs; say where that cannot be done."""
    from nsysmoe.analysis.routing.routed import write_captured  # noqa: PLC0415 - what a node may lack

    try:
        write_captured(place, f"{result.arm}/run-{result.number}")
    except NsysmoeError as error:
        return (Check("routing", "warn", str(error)),)
    return ()


def judge_arms(results: list[Result]) -> tuple[Check, ...]:
    """Judge whether the runs of each arm that count did the same work."""
    arms = dict.fromkeys(result.arm for result in results)
    launches = {
        arm: {
            one.number: one.launches
            for one in results
            if one.arm == arm and one.counts and one.launches is not None
        }
        for arm in arms
    }
    return tuple(verify.judge_arm(arm, counts) for arm, counts in launches.items() if counts)


def verify_folder(root: Path, say: Say, *, allow_code_loads: bool = False) -> Outcome:
    """Verify every run of a capture that was made elsewhere; set aside those that do not count.

    Raises:
        CaptureError: There is no capture, or what reads traces is not installed.
    """
    if not verify.can_verify():
        raise CaptureError("verifying reads traces; install nsysmoe with its dependencies first")
    folder = keep.Folder(root)
    manifest = folder.manifest()
    if manifest is None:
        raise CaptureError(f"{root} holds no manifest.json; name the folder of a capture")
    results = [Result.from_dict(entry) for entry in manifest["runs"]]
    spec = manifest["spec"]
    if spec["profile"] == "none":
        raise CaptureError(f"{root} was made without a profiler; there is no trace to verify")
    # Manifests of earlier versions do not say.
    spec["allow_code_loads"] = allow_code_loads or spec.get("allow_code_loads", False)
    with folder.held():
        for result in results:
            if result.counts:
                say(f"{result.folder}: verifying")
                _verify_kept(folder, spec, result)
        outcome = Outcome(results, judge_arms(results))
        known = {key: value for key, value in manifest.items() if key != "schema_version"}
        folder.write_manifest({**known, **outcome.to_dict()})
    return outcome


def _verify_kept(folder: keep.Folder, spec: dict[str, Any], result: Result) -> None:
    verify_run(folder.root / result.folder, spec, result)
    if not (bad := verify.failed(result.checks)):
        return
    result.status, result.reason = "failed", "; ".join(check.line() for check in bad)
    result.folder = folder.set_aside(f"{result.arm}-run-{result.number}", result.folder)
