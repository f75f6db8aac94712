"""The last snapshot for Prometheus: names, units and labels in docs/production/watch.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from nsysmoe.errors import WatchError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.core import Metric

    from nsysmoe.watch.watcher import Snapshot

_VALUES = {
    "running": ("nsysmoe_requests_running", "Requests in batches."),
    "waiting": ("nsysmoe_requests_waiting", "Requests that wait to be scheduled."),
    "cache_ratio": ("nsysmoe_kv_cache_ratio", "Share of the KV cache in use."),
    "output_tok_per_s": ("nsysmoe_output_tokens_per_second", "Generated over the window."),
    "balancedness": ("nsysmoe_balancedness", "Sum of means over sum of maxima of devices."),
    "lowest_layer_balancedness": ("nsysmoe_lowest_layer_balancedness", "Of the worst layer."),
    "eplb_countdown": ("nsysmoe_eplb_countdown_steps", "Steps to the next rearrangement."),
    "since_rearrangement_s": ("nsysmoe_eplb_since_rearrangement_seconds", "By the log's clock."),
    "dropped_ratio": ("nsysmoe_dropped_ratio", "Choices beyond the capacity factor's buffers."),
    "overflow_ratio": ("nsysmoe_overflow_ratio", "Experts beyond the capacity factor's buffers."),
    "drift": ("nsysmoe_routing_drift", "Total variation distance to the domain's recent mean."),
    "excess_drift": ("nsysmoe_routing_excess_drift", "Of it, beyond what chance would make."),
    "domain_drift": ("nsysmoe_domain_drift", "The largest distance between two domains."),
    "capture_wait_share": ("nsysmoe_capture_wait_ratio", "Waiting over communication."),
}  # fmt: skip


class Exporter:
    """Holds the last snapshot; Prometheus takes it when it likes."""

    def __init__(self) -> None:
        self._last: Snapshot | None = None

    def show(self, snapshot: Snapshot) -> None:
        """Replace the last snapshot."""
        self._last = snapshot

    def collect(self) -> Iterator[Metric]:
        """Yield every metric that is known."""
        found = self._last
        if found is None:
            return
        for name, (metric, text) in _VALUES.items():
            if (value := found.values[name]) is not None:
                yield GaugeMetricFamily(metric, text, value=value)
        yield from _latencies(found.server or {})
        yield from _eplb(found.eplb)
        yield from _routing(found.routing)
        yield from _capture(found.capture)
        yield from _sources(found.sources)
        yield _alerts(found.alerts)


def serve(exporter: Exporter, host: str, port: int) -> int:
    """Serve /metrics; return the port, which port 0 leaves to the system.

    Raises:
        WatchError: The address cannot be listened on.
    """
    registry = CollectorRegistry()
    registry.register(exporter)
    try:
        server, _ = start_http_server(port, addr=host, registry=registry)
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or error
        raise WatchError(
            f"{host}:{port} cannot be listened on ({why}); choose another --listen"
        ) from error
    return int(server.server_port)


def _latencies(server: dict[str, Any]) -> Iterator[Metric]:
    for name in ("ttft", "tpot", "queue"):
        if not (told := server.get(name)):
            continue
        family = GaugeMetricFamily(
            f"nsysmoe_{name}_seconds", "Over the window.", labels=["percentile"]
        )
        # Not "quantile": that is the label of summaries, which these gauges are not.
        for share in (50, 95, 99):
            if (value := told[f"p{share}_s"]) is not None:
                family.add_metric([str(share)], value)
        yield family


def _eplb(eplb: dict[str, Any] | None) -> Iterator[Metric]:
    if eplb is None:
        return
    yield CounterMetricFamily(
        "nsysmoe_eplb_rearrangements", "Seen in the log.", value=eplb["rearrangements"]
    )
    yield CounterMetricFamily(
        "nsysmoe_eplb_rearranging_seconds", "Spent on them.", value=eplb["rearranging_s"]
    )
    family = GaugeMetricFamily(
        "nsysmoe_logged_balancedness",
        "As vLLM logs it; definition over_layers says nothing about ranks.",
        labels=["model", "definition"],
    )
    for model in eplb["models"]:
        if model["balancedness"] is not None:
            family.add_metric([model["model"], eplb["definition"]], model["balancedness"])
    yield family


def _routing(routing: dict[str, Any] | None) -> Iterator[Metric]:
    if routing is None:
        return
    balance = GaugeMetricFamily(
        "nsysmoe_layer_balancedness", "Mean over maximum.", labels=["layer", "over"]
    )
    share = GaugeMetricFamily(
        "nsysmoe_hottest_expert_share", "Of a layer's choices.", labels=["layer"]
    )
    for row in routing["layers"]:
        layer = str(row["layer"])
        if row["balancedness"] is not None:
            balance.add_metric([layer, routing["over"]], row["balancedness"])
        if row["hottest"]:
            # Which expert it is would make a new series whenever it changes.
            share.add_metric([layer], row["hottest"][0]["share"])
    yield balance
    yield share
    yield CounterMetricFamily("nsysmoe_dumps", "Dumps of routing read.", value=routing["dumps"])


def _capture(capture: dict[str, Any] | None) -> Iterator[Metric]:
    if capture is None:
        return
    for name in ("wait", "transfer"):
        yield GaugeMetricFamily(
            f"nsysmoe_capture_{name}_seconds",
            "Of the last capture, over ranks.",
            value=capture[f"{name}_ns"] / 1e9,
        )


def _sources(sources: tuple[dict[str, Any], ...]) -> Iterator[Metric]:
    up = GaugeMetricFamily("nsysmoe_source_up", "Whether it can be read.", labels=["source"])
    bad = CounterMetricFamily(
        "nsysmoe_source_bad", "Lines or files that could not be used.", labels=["source"]
    )
    for one in sources:
        up.add_metric([one["kind"]], float(one["up"]))
        bad.add_metric([one["kind"]], one["bad"])
    yield up
    yield bad


def _alerts(alerts: tuple[dict[str, Any], ...]) -> Metric:
    family = GaugeMetricFamily(
        "nsysmoe_alert_firing", "1 where it fires.", labels=["alert", "severity"]
    )
    for one in alerts:
        family.add_metric([one["name"], one["severity"]], float(one["state"] == "firing"))
    return family
