"""Two arms side by side: the paper's Table 1 as a value that can be kept and rendered again."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from nsysmoe.bounded_files import read_json
from nsysmoe.errors import InputError
from nsysmoe.findings import Finding
from nsysmoe.metrics.kernel_time.table1 import Group
from nsysmoe.metrics.statistics.interval import Interval
from nsysmoe.whole_files import whole_file

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nsysmoe.metrics.kernel_time.table1 import Value

T = TypeVar("T")

SCHEMA_VERSION = 1
_SAVE = "write one with nsysmoe compare --format json"
_SEVERITIES = {name: name for name in ("info", "warning", "error")}
_GROUP_NAMES = {name: name for name in ("moe_kernel", "communication")}
_METRIC_GROUPS = {name: name for name in get_args(Group)}


@dataclass(frozen=True)
class Breakdown:
    """One kernel of an arm on one device; ``device`` None means all that the input holds.

    ``host`` is None where the arm ran on one.
    """

    group: str
    kernel: str
    process: int | None
    device: int | None
    launches: int
    total_ns: int
    host: str | None = None


@dataclass(frozen=True)
class Side:
    """One side of a comparison: its label, its files, and where its time went."""

    label: str
    sources: tuple[str, ...]
    breakdown: tuple[Breakdown, ...]

    def moe_functions(self) -> list[str]:
        """Return the functions that count as MoE kernels here, sorted."""
        return sorted({row.kernel for row in self.breakdown if row.group == "moe_kernel"})


@dataclass(frozen=True)
class Change:
    """One metric on both sides; ``change`` is candidate / baseline - 1, lower is better.

    ``verdict`` is better, worse, same, within_noise (an interval is known and holds 0, or the
    change is within ``uncertainty_ns``), not_comparable, or None where a value is not known.
    ``uncertainty_ns`` is how far candidate - baseline may be off by what clocks of files agree to;
    None where the metric needs one clock alone. ``baseline_values`` and ``candidate_values`` are of
    each run, in the order of the arm's sources; of a part, of the runs that have it.
    """

    group: str
    metric: str
    baseline: Value
    candidate: Value
    change: float | None
    verdict: str | None
    interval: Interval | None = None
    uncertainty_ns: float | None = None
    baseline_values: tuple[Value, ...] = ()
    candidate_values: tuple[Value, ...] = ()

    @property
    def is_within_clocks(self) -> bool:
        """Whether the change is no more than what clocks of files agree to."""
        if self.uncertainty_ns is None or self.baseline is None or self.candidate is None:
            return False
        return abs(self.candidate - self.baseline) <= self.uncertainty_ns


@dataclass(frozen=True)
class Part:
    """The metrics of one phase or one rank."""

    kind: str
    key: str
    metrics: tuple[Change, ...]


@dataclass(frozen=True)
class Sentence:
    """One sentence of the verdict: which question, the answer in a word, and the evidence."""

    question: str
    answer: str
    sentence: str
    evidence: dict[str, Any]


@dataclass(frozen=True)
class Comparison:
    """Table 1 of two arms, with what to know before believing it.

    Attributes:
        baseline: The first arm.
        candidate: The second.
        metrics: Table 1, what stands beside it, and what it hides.
        findings: What to know before believing it.
        verdict: What it comes to, a sentence a question.
        parts: The metrics by phase and by rank.
        undistorted: Metrics as if no step had been stretched by something else than the workload.
        causes: Where wall time went, of the GPU whose window is longest: ``cause``,
            ``baseline_ns``, ``candidate_ns`` (means over runs), ``change_ns``; they add up to the
            wall times. ``baseline_values`` and ``candidate_values`` are of each run. Of runs on
            several clocks also ``uncertainty_ns``: how far ``change_ns`` of transfer, and
            of all that waits for other ranks together, may be off by what clocks agree to; None
            for what needs one clock alone.
        latency: What users saw, by the runs' records: rows of ``analysis.latency.latency_rows``;
            empty where ``nsysmoe capture`` did not make the runs.
        distorted_steps: Those steps: ``label``, ``source``, ``step``, ``phase``, ``start_ns``,
            ``wall_ns``, ``typical_ns``, ``cause``.
    """

    baseline: Side
    candidate: Side
    metrics: tuple[Change, ...]
    findings: tuple[Finding, ...]
    verdict: tuple[Sentence, ...] = ()
    parts: tuple[Part, ...] = ()
    undistorted: tuple[Change, ...] = ()
    distorted_steps: tuple[dict[str, Any], ...] = ()
    causes: tuple[dict[str, Any], ...] = ()
    latency: tuple[dict[str, Any], ...] = ()

    @property
    def sources(self) -> tuple[Path, ...]:
        """The files of both arms."""
        return tuple(Path(name) for name in (*self.baseline.sources, *self.candidate.sources))

    def metric(self, key: str) -> Change:
        """Return the row of a metric by its JSON key.

        Raises:
            KeyError: There is no such metric.
        """
        return {change.metric: change for change in self.metrics}[key]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values with the keys that schema version 1 fixes."""
        return {
            "schema_version": SCHEMA_VERSION,
            "baseline": _side_to_dict(self.baseline),
            "candidate": _side_to_dict(self.candidate),
            "metrics": [_change_to_dict(change) for change in self.metrics],
            "findings": [finding.to_dict() for finding in self.findings],
            "verdict": [asdict(sentence) for sentence in self.verdict],
            "parts": [
                {
                    "kind": part.kind,
                    "key": part.key,
                    "metrics": [_change_to_dict(change) for change in part.metrics],
                }
                for part in self.parts
            ],
            "undistorted": [_change_to_dict(change) for change in self.undistorted],
            "distorted_steps": list(self.distorted_steps),
            "causes": list(self.causes),
            "latency": list(self.latency),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Comparison:
        """Build a comparison from what ``to_dict`` returned."""
        return cls(
            _side_from_dict(values["baseline"]),
            _side_from_dict(values["candidate"]),
            _changes_from(values["metrics"]),
            tuple(Finding.from_dict(finding) for finding in values["findings"]),
            # Earlier versions wrote none of these.
            tuple(_known(Sentence, part) for part in values.get("verdict", ())),
            tuple(
                Part(part["kind"], part["key"], _changes_from(part["metrics"]))
                for part in values.get("parts", ())
            ),
            _changes_from(values.get("undistorted", ())),
            tuple(values.get("distorted_steps", ())),
            tuple(values.get("causes", ())),
            tuple(values.get("latency", ())),
        )

    def save(self, path: str | Path) -> None:
        """Write the comparison as JSON, whole or not at all.

        Raises:
            OSError: The file cannot be written.
        """
        with whole_file(Path(path)) as partial:
            partial.write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Comparison:
        """Read a comparison that ``save`` or ``--format json`` wrote.

        Raises:
            InputError: The file is no such JSON.
        """
        values = read_json(Path(path), fix=_SAVE)
        try:
            if values["schema_version"] != SCHEMA_VERSION:
                raise InputError(
                    f"{path} has schema version {values['schema_version']}, this nsysmoe reads "
                    f"{SCHEMA_VERSION}; compare the traces again"
                )
            comparison = cls.from_dict(values)
            _check_types(comparison)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(f"{path} is not a comparison that nsysmoe saved; {_SAVE}") from error
        return comparison


def _side_to_dict(side: Side) -> dict[str, Any]:
    return {
        "label": side.label,
        "sources": list(side.sources),
        "breakdown": [_row_to_dict(row) for row in side.breakdown],
    }


def _change_to_dict(change: Change) -> dict[str, Any]:
    """Return JSON values: lists where the value has tuples."""
    return asdict(change) | {key: list(getattr(change, key)) for key in _OF_RUNS}


def _row_to_dict(row: Breakdown) -> dict[str, Any]:
    """Return JSON values; the host of an arm that ran on one is left out."""
    values = asdict(row)
    return {key: value for key, value in values.items() if key != "host" or value is not None}


def _check_types(comparison: Comparison) -> None:
    """Raise TypeError or ValueError where a value read from JSON is not what it must be."""
    _check_runs(comparison)
    checks = [
        *(
            check
            for side in (comparison.baseline, comparison.candidate)
            for check in _of_side(side)
        ),
        *(check for change in _all_changes(comparison) for check in _of_change(change)),
        *((step, (dict,)) for step in comparison.distorted_steps),
        *(check for cause in comparison.causes for check in _of_cause(cause)),
        *(check for row in comparison.latency for check in _of_latency(row)),
    ]
    for part in comparison.verdict:
        checks += [(text, (str,)) for text in (part.question, part.answer, part.sentence)]
    for finding in comparison.findings:
        checks += [(finding.code, (str,)), (finding.message, (str,)), (finding.evidence, (dict,))]
        checks += [(_SEVERITIES[finding.severity], (str,))]
    for value, kinds in checks:
        if not _is_of(value, kinds):
            raise TypeError(value)


def _is_of(value: object, kinds: tuple[type, ...]) -> bool:
    if isinstance(value, bool):
        # To Python it is a whole number, too.
        return bool in kinds
    return isinstance(value, kinds) and not (isinstance(value, int) and abs(value) >= 2**63)


def _check_runs(comparison: Comparison) -> None:
    """Raise ValueError where values of runs are not as many as their arm's files."""
    for change in comparison.metrics:
        for side, values in (
            (comparison.baseline, change.baseline_values),
            (comparison.candidate, change.candidate_values),
        ):
            # Earlier versions wrote none.
            if values and len(values) != len(side.sources):
                raise ValueError(values)
    for key, side in zip(_OF_RUNS, (comparison.baseline, comparison.candidate), strict=True):
        known = [row[key] for row in comparison.causes if key in row]
        is_whole = len(known) in {0, len(comparison.causes)}
        if not is_whole or any(len(values) != len(side.sources) for values in known):
            raise ValueError(key)


_NUMBER = (int, float, type(None))
_OF_RUNS = ("baseline_values", "candidate_values")
_OF_BOTH = ("baseline", "candidate", "change")
Check = tuple[object, tuple[type, ...]]


def _of_side(side: Side) -> list[Check]:
    checks: list[Check] = [(text, (str,)) for text in (side.label, *side.sources)]
    for row in side.breakdown:
        checks += [(row.kernel, (str,)), (row.launches, (int,)), (row.total_ns, (int,))]
        checks += [(row.process, _NUMBER), (row.device, _NUMBER), (_GROUP_NAMES[row.group], (str,))]
    return checks


def _of_change(change: Change) -> list[Check]:
    checks: list[Check] = [
        (value, _NUMBER) for value in (change.baseline, change.candidate, change.change)
    ]
    checks += [(_METRIC_GROUPS[change.group], (str,))]
    checks += [(change.metric, (str,)), (change.verdict, (str, type(None)))]
    checks.append((change.uncertainty_ns, _NUMBER))
    checks += [(value, _NUMBER) for value in (*change.baseline_values, *change.candidate_values)]
    return checks + _of_interval(change.interval)


def _of_interval(found: Interval | None) -> list[Check]:
    if found is None:
        return []
    checks: list[Check] = [(value, (int, float)) for value in (found.low, found.high, found.level)]
    checks += [(count, (int,)) for count in (found.baseline_n, found.candidate_n)]
    return [*checks, (found.over, (str,))]


def _of_cause(row: dict[str, Any]) -> list[Check]:
    keys = ("baseline_ns", "candidate_ns", "change_ns")
    times: list[Check] = [(row[key], (int, float)) for key in keys]
    # Earlier versions wrote none of these.
    lists = [row[key] for key in _OF_RUNS if key in row]
    times += [(values, (list,)) for values in lists]
    times += [(value, (int, float)) for values in lists for value in values]
    return [(row["cause"], (str,)), (row.get("uncertainty_ns"), _NUMBER), *times]


def _of_latency(row: dict[str, Any]) -> list[Check]:
    keys = [f"{key}{which}" for key in _OF_BOTH for which in ("", "_unprofiled")]
    checks: list[Check] = [(row["metric"], (str,)), *((row[key], _NUMBER) for key in keys)]
    checks += [(row[key], (int,)) for key in ("baseline_runs", "candidate_runs")]
    checks.append((row["higher_is_better"], (bool,)))
    # Earlier versions wrote none of these.
    lists = [f"{key}{which}" for key in _OF_RUNS for which in ("", "_unprofiled")]
    checks += [(value, _NUMBER) for key in lists for value in row.get(key, ())]
    intervals = [_interval_from(row.get(f"interval{which}")) for which in ("", "_unprofiled")]
    return [*checks, *(check for one in intervals for check in _of_interval(one))]


def _all_changes(comparison: Comparison) -> list[Change]:
    of_parts = [change for part in comparison.parts for change in part.metrics]
    return [*comparison.metrics, *comparison.undistorted, *of_parts]


def _changes_from(values: Iterable[dict[str, Any]]) -> tuple[Change, ...]:
    return tuple(
        _known(
            Change,
            {
                **row,
                "interval": _interval_from(row.get("interval")),
                **{key: tuple(row.get(key, ())) for key in _OF_RUNS},
            },
        )
        for row in values
    )


def _interval_from(values: dict[str, Any] | None) -> Interval | None:
    return None if values is None else _known(Interval, values)


def _known(kind: type[T], values: dict[str, Any]) -> T:
    """Build a value from its own keys; later versions may have added others."""
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    return kind(**{key: value for key, value in values.items() if key in names})


def _side_from_dict(values: dict[str, Any]) -> Side:
    return Side(
        values["label"],
        tuple(values["sources"]),
        tuple(_known(Breakdown, row) for row in values["breakdown"]),
    )
