"""One trace's metrics, overall and by device."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from nsysmoe.metrics.kernel_time.table1 import METRICS
from nsysmoe.reports.document import Column, Document, Row, Table
from nsysmoe.reports.pages.comparing.comparison import GROUP_TITLES, metric_label, metric_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nsysmoe.analysis.one_trace.summary import DeviceSummary, Measured, Summary


def summary_page(summary: Summary) -> Document:
    """Return one row a metric; one column for all, then one for each device."""
    columns = (
        Column("Metric", "left"),
        Column("All"),
        *(Column(_device(device)) for device in summary.devices),
    )
    values = [_by_key(summary.metrics), *(_by_key(d.metrics) for d in summary.devices)]
    rows = tuple(
        Row(
            (
                metric_label(metric, "MoE"),
                *(metric_text(metric, found[metric.key].value) for found in values),
            ),
            GROUP_TITLES[metric.group],
        )
        for metric in sorted(METRICS, key=lambda m: list(GROUP_TITLES).index(m.group))
    )
    records = [{"process": None, "device": None, **asdict(m)} for m in summary.metrics]
    for device in summary.devices:
        where: dict[str, Any] = {"process": device.process, "device": device.device}
        where |= {"host": device.host} if device.host is not None else {}
        records += [{**where, **asdict(metric)} for metric in device.metrics]
    return Document(
        title=f"Summary of {summary.source}",
        tables=(Table(summary.source, columns, rows),),
        data=summary.to_dict(),
        records=tuple(records),
        findings=summary.findings,
    )


def _by_key(metrics: Sequence[Measured]) -> dict[str, Measured]:
    return {metric.metric: metric for metric in metrics}


def _device(device: DeviceSummary) -> str:
    process = "" if device.process is None else f" (pid {device.process})"
    host = "" if device.host is None else f"{device.host}: "
    return f"{host}Device {device.device}{process}"
