"""Two arms side by side: the paper's Table 1 as a value that can be kept and rendered again."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from nsysmoe.analysis.run import Run, read_run, require_moe_kernels
from nsysmoe.classes import COLLECTIVE, MOE_GEMM
from nsysmoe.errors import InputError
from nsysmoe.findings import Finding
from nsysmoe.metrics.table1 import (
    BASELINE_LABEL,
    CANDIDATE_LABEL,
    METRICS,
    Value,
    metric_values,
    relative_change,
    verdict,
)

if TYPE_CHECKING:
    from nsysmoe.classes import ClassMap

T = TypeVar("T")

SCHEMA_VERSION = 1
_SEVERITIES = {name: name for name in ("info", "warning", "error")}
_GROUPS = {MOE_GEMM: "moe_kernel", COLLECTIVE: "communication"}


_GROUP_NAMES = {name: name for name in _GROUPS.values()}


@dataclass(frozen=True)
class Breakdown:
    """One kernel of an arm on one device; ``device`` None means all that the input holds."""

    group: str
    kernel: str
    process: int | None
    device: int | None
    launches: int
    total_ns: int


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
    """One metric on both sides; ``change`` is candidate / baseline - 1, lower is better."""

    group: str
    metric: str
    baseline: Value
    candidate: Value
    change: float | None
    verdict: str | None


@dataclass(frozen=True)
class Comparison:
    """Table 1 of two arms, with what to know before believing it."""

    baseline: Side
    candidate: Side
    metrics: tuple[Change, ...]
    findings: tuple[Finding, ...]

    def metric(self, key: str) -> Change:
        """Return the row of a metric by its JSON key."""
        return next(change for change in self.metrics if change.metric == key)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values with the keys that schema version 1 fixes."""
        return {
            "schema_version": SCHEMA_VERSION,
            "baseline": _side_to_dict(self.baseline),
            "candidate": _side_to_dict(self.candidate),
            "metrics": [asdict(change) for change in self.metrics],
            "findings": [finding.to_dict() for finding in self.findings],
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Comparison:
        """Build a comparison from what ``to_dict`` returned."""
        return cls(
            _side_from_dict(values["baseline"]),
            _side_from_dict(values["candidate"]),
            tuple(_known(Change, change) for change in values["metrics"]),
            tuple(Finding.from_dict(finding) for finding in values["findings"]),
        )

    def save(self, path: str | Path) -> None:
        """Write the comparison as JSON."""
        Path(path).write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Comparison:
        """Read a comparison that ``save`` or ``--format json`` wrote.

        Raises:
            InputError: The file is no such JSON.
        """
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
            if values["schema_version"] != SCHEMA_VERSION:
                raise InputError(
                    f"{path} has schema version {values['schema_version']}, this nsysmoe reads "
                    f"{SCHEMA_VERSION}; compare the traces again"
                )
            comparison = cls.from_dict(values)
            _check_types(comparison)
        except OSError as error:
            raise InputError(f"{path} cannot be read ({error.strerror}); check the path") from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(
                f"{path} is not a comparison that nsysmoe saved; write one with "
                "nsysmoe compare --format json"
            ) from error
        return comparison


def compare(  # noqa: PLR0913 - what one comparison is made of, by keyword
    baseline: str | Path,
    candidate: str | Path,
    *,
    baseline_label: str = BASELINE_LABEL,
    candidate_label: str = CANDIDATE_LABEL,
    class_map: ClassMap | None = None,
    nsys: str | None = None,
) -> Comparison:
    """Compare two runs of one workload; both files load at once, a thread each.

    Args:
        baseline: A ``.sqlite`` export, a report, or a kernel summary as CSV.
        candidate: The same for the other arm.
        baseline_label: How to call the first arm.
        candidate_label: How to call the second.
        class_map: What each kernel is for; the shipped map where left out.
        nsys: The ``nsys`` that exports reports; the one on PATH where left out.

    Raises:
        NsysmoeError: An input cannot be used, or holds no MoE kernel.
    """
    with ThreadPoolExecutor(3) as threads:
        # Importing takes a fifth of a second of one core, which loading leaves idle at first.
        threads.submit(_import_frames)
        # Two arms share the cores.
        cores = max(1, (os.cpu_count() or 2) // 2)
        arms = [
            threads.submit(read_run, path, class_map=class_map, nsys=nsys, threads=cores)
            for path in (baseline, candidate)
        ]
        return compare_arms(arms[0].result(), arms[1].result(), baseline_label, candidate_label)


def _import_frames() -> None:
    for module in ("polars", "pyarrow"):
        import_module(module)


def compare_arms(
    baseline: Run, candidate: Run, baseline_label: str, candidate_label: str
) -> Comparison:
    """Compare two arms that were read.

    Raises:
        MissingDataError: An arm holds no MoE kernel.
    """
    from nsysmoe.analysis.diagnosis import diagnose  # noqa: PLC0415 - polars loads by the arms

    for arm in (baseline, candidate):
        require_moe_kernels(arm)
    before, after = (metric_values(a.durations, a.communication) for a in (baseline, candidate))
    return Comparison(
        _side(baseline, baseline_label),
        _side(candidate, candidate_label),
        tuple(
            Change(
                metric.group,
                metric.key,
                before[metric.key],
                after[metric.key],
                relative_change(before[metric.key], after[metric.key]),
                verdict(before[metric.key], after[metric.key]),
            )
            for metric in METRICS
        ),
        tuple(diagnose(baseline, candidate)),
    )


def _side(arm: Run, label: str) -> Side:
    return Side(label, (str(arm.path),), tuple(_breakdown(arm)))


def _breakdown(arm: Run) -> list[Breakdown]:
    import polars as pl  # noqa: PLC0415

    counted = arm.kernels.filter(pl.col("class").is_in(list(_GROUPS)))
    if arm.moe_events is not None and arm.collective_events is not None:
        per_device = (
            pl.concat([arm.moe_events, arm.collective_events.select(arm.moe_events.columns)])
            .group_by("name_id", "global_pid", "process_id", "device_id")
            .agg(
                pl.len().cast(pl.Int64).alias("launches"), pl.col("dur_ns").sum().alias("total_ns")
            )
        )
        counted = counted.drop("launches", "total_ns").join(per_device, on="name_id")
    else:
        unknown = pl.lit(None, pl.Int64)
        counted = counted.with_columns(global_pid=unknown, process_id=unknown, device_id=unknown)
    keys = ["class", "function", "global_pid", "process_id", "device_id"]
    rows = counted.group_by(keys).agg(pl.col("launches", "total_ns").sum())
    rows = rows.sort("class", "total_ns", *keys[1:], descending=[True, True, *[False] * 4])
    return [
        Breakdown(_GROUPS[kind], *rest)
        for kind, *rest in rows.select(*keys, "launches", "total_ns").drop("global_pid").iter_rows()
    ]


def _side_to_dict(side: Side) -> dict[str, Any]:
    return {
        "label": side.label,
        "sources": list(side.sources),
        "breakdown": [asdict(row) for row in side.breakdown],
    }


def _check_types(comparison: Comparison) -> None:
    """Raise TypeError where a value that was read from JSON is not of its kind."""
    number, text, count = (int, float, type(None)), (str,), (int,)
    checks: list[tuple[object, tuple[type, ...]]] = []
    for side in (comparison.baseline, comparison.candidate):
        checks += [(side.label, text), *((source, text) for source in side.sources)]
        for row in side.breakdown:
            checks += [(row.kernel, text), (row.launches, count), (row.total_ns, count)]
            checks += [(row.process, number), (row.device, number), (_GROUP_NAMES[row.group], text)]
    for change in comparison.metrics:
        checks += [(v, number) for v in (change.baseline, change.candidate, change.change)]
        checks += [(change.metric, text), (change.verdict, (str, type(None)))]
    for finding in comparison.findings:
        checks += [(finding.code, text), (finding.message, text), (finding.evidence, (dict,))]
        checks += [(_SEVERITIES[finding.severity], text)]
    for value, kinds in checks:
        if not isinstance(value, kinds) or (isinstance(value, int) and abs(value) >= 2**63):
            raise TypeError(value)


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
