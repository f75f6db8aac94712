"""One trace by itself: the metrics of Table 1, overall and by device."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from nsysmoe.analysis.reading.arm import Arm, one_of_runs
from nsysmoe.analysis.reading.gathering import gathered, how_read
from nsysmoe.analysis.reading.hosts import host_of
from nsysmoe.analysis.reading.run import Run, read_run
from nsysmoe.classes import COLLECTIVE
from nsysmoe.metrics.kernel_time.table1 import METRICS, Value, metric_values

if TYPE_CHECKING:
    import polars as pl

    from nsysmoe.analysis.reading.gathering import Gathering
    from nsysmoe.classes import ClassMap
    from nsysmoe.export.files import Source
    from nsysmoe.findings import Finding

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Measured:
    """One metric's value; units as in its key."""

    group: str
    metric: str
    value: Value


@dataclass(frozen=True)
class DeviceSummary:
    """The metrics of one process on one device; ``host`` where the run has several."""

    process: int | None
    device: int
    metrics: tuple[Measured, ...]
    host: str | None = None


@dataclass(frozen=True)
class Summary:
    """The metrics of Table 1 for one input; ``devices`` is empty for a kernel summary."""

    source: str
    metrics: tuple[Measured, ...]
    devices: tuple[DeviceSummary, ...]
    findings: tuple[Finding, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "schema_version": SCHEMA_VERSION,
            "source": self.source,
            "metrics": [asdict(metric) for metric in self.metrics],
            "devices": [_device_to_dict(device) for device in self.devices],
            "findings": [finding.to_dict() for finding in self.findings],
        }


def _device_to_dict(device: DeviceSummary) -> dict[str, Any]:
    """Return JSON values; the host of a run that has one is left out."""
    values = asdict(device)
    return {key: value for key, value in values.items() if key != "host" or value is not None}


def summarize(
    path: Source,
    *,
    class_map: ClassMap | None = None,
    nsys: str | None = None,
    gathering: Gathering | None = None,
) -> Summary:
    """Summarise one run, report or kernel summary; of a folder of runs, the median one.

    Takes and raises what ``read_run`` does; an input without MoE kernels is summarised with a
    finding that says so.
    """
    from nsysmoe.analysis.diagnosis import diagnose_one  # noqa: PLC0415 - polars loads by the run

    sources = gathered(path, gathering, class_map=class_map, nsys=nsys)
    runs = tuple(read_run(one, class_map=class_map, nsys=nsys) for one in sources)
    run = Arm(str(path), runs).representative
    return Summary(
        str(run.path),
        _measured(run.durations, run.communication),
        tuple(_devices(run)),
        (*one_of_runs(path, run.path, len(runs)), *how_read(sources), *diagnose_one(run)),
    )


def _devices(run: Run) -> list[DeviceSummary]:
    import polars as pl  # noqa: PLC0415

    from nsysmoe.metrics.kernel_time.communication import communication_totals  # noqa: PLC0415
    from nsysmoe.metrics.kernel_time.durations import counted_statistics  # noqa: PLC0415

    durations, ranks = run.moe_durations, run.ranks
    if durations is None or ranks is None or run.collectives is None:
        return []
    keys = ["global_pid", "process_id", "device_id"]
    names = run.kernels.filter(pl.col("class") == COLLECTIVE).drop("launches", "total_ns")
    found = []
    pairs = (
        pl.concat([frame.select(keys) for frame in (ranks, run.collectives)])
        .unique()
        .sort(pl.col("global_pid") // (1 << 48), "device_id", "global_pid")
    )
    for global_pid, process, device in pairs.iter_rows():
        here = pl.col("global_pid").eq_missing(global_pid) & (pl.col("device_id") == device)
        collectives = (
            run.collectives.filter(here)
            .group_by("name_id")
            .agg(pl.col("dur_ns").sum().alias("total_ns"))
            .join(names, on="name_id")
        )
        launched = durations.filter(pl.col("rank").is_in(ranks.filter(here)["rank"].implode()))
        metrics = _measured(counted_statistics(launched), communication_totals(collectives))
        found.append(DeviceSummary(process, device, metrics, host_of(global_pid, run.hosts)))
    return found


def _measured(durations: pl.DataFrame, communication: pl.DataFrame) -> tuple[Measured, ...]:
    values = metric_values(durations, communication)
    return tuple(Measured(m.group, m.key, values[m.key]) for m in METRICS)
