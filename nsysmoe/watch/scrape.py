"""What a server's /metrics tells, under the names of every vLLM since 0.9."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field

from nsysmoe.watch.histogram import Histogram, added

# Ours, then theirs, the newest first: a server that has several is asked for the first.
_GAUGES = {
    "running": ("vllm:num_requests_running",),
    "waiting": ("vllm:num_requests_waiting",),
    "cache_ratio": ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
}
_COUNTERS = {
    "preemptions": ("vllm:num_preemptions_total",),
    "generated": ("vllm:generation_tokens_total",),
}
_HISTOGRAMS = {
    "ttft": ("vllm:time_to_first_token_seconds",),
    # A mean a request; to 0.10 only the time between tokens, under the same name.
    "tpot": (
        "vllm:request_time_per_output_token_seconds",
        "vllm:inter_token_latency_seconds",
        "vllm:time_per_output_token_seconds",
    ),
    "queue": ("vllm:request_queue_time_seconds",),
}
_ENDS = ("_bucket",)
_WANTED = frozenset(
    name + end
    for table, ends in ((_GAUGES, ("",)), (_COUNTERS, ("",)), (_HISTOGRAMS, _ENDS))
    for names in table.values()
    for name in names
    for end in ends
)
# More series of one name than any deployment has engines and bounds.
_MOST_SERIES = 10_000
_MEANS = {"cache_ratio"}


@dataclass(frozen=True)
class Scrape:
    """One look at /metrics.

    Attributes:
        values: ``running``, ``waiting``, ``cache_ratio`` (mean over engines), ``preemptions``,
            ``generated``; what the server does not tell is missing.
        histograms: ``ttft``, ``tpot`` and ``queue``, s, added up over engines.
        tpot_name: Which of theirs ``tpot`` is.
        bad_lines: Lines with a name of interest that are no sample.
    """

    values: dict[str, float] = field(default_factory=dict)
    histograms: dict[str, Histogram] = field(default_factory=dict)
    tpot_name: str | None = None
    bad_lines: int = 0


def read_metrics(text: str) -> Scrape:
    """Read the text that Prometheus would scrape; lines that are no sample are counted."""
    from prometheus_client.parser import text_string_to_metric_families  # noqa: PLC0415 - an extra

    found: dict[str, list[tuple[dict[str, str], float]]] = defaultdict(list)
    bad = 0
    for line in text.splitlines():
        name = line.split("{", 1)[0].split(" ", 1)[0]
        if name not in _WANTED or len(found[name]) >= _MOST_SERIES:
            continue
        try:
            # By line: one that is damaged does not hide the others.
            for family in text_string_to_metric_families(line + "\n"):
                found[name] += [(sample.labels, float(sample.value)) for sample in family.samples]
        except (ValueError, KeyError, IndexError):
            bad += 1
    return _scrape(found, bad)


def _scrape(found: dict[str, list[tuple[dict[str, str], float]]], bad: int) -> Scrape:
    values: dict[str, float] = {}
    for table in (_GAUGES, _COUNTERS):
        for ours, names in table.items():
            rows = next((found[name] for name in names if found.get(name)), [])
            known = [value for _, value in rows if math.isfinite(value)]
            if known:
                values[ours] = sum(known) / (len(known) if ours in _MEANS else 1)
    histograms, tpot_name = {}, None
    for ours, names in _HISTOGRAMS.items():
        for name in names:
            merged = added(_histograms(found.get(name + "_bucket", [])))
            if merged is not None:
                histograms[ours] = merged
                tpot_name = name if ours == "tpot" else tpot_name
                break
    return Scrape(values, histograms, tpot_name, bad)


def _histograms(rows: list[tuple[dict[str, str], float]]) -> list[Histogram]:
    """Return a histogram for each set of labels beside ``le``; broken ones are left out."""
    series: dict[tuple[tuple[str, str], ...], dict[float, float]] = defaultdict(dict)
    for labels, value in rows:
        try:
            bound = float(labels["le"])
        except (KeyError, ValueError):
            continue
        key = tuple(sorted((name, text) for name, text in labels.items() if name != "le"))
        series[key][bound] = value
    made = []
    for counts in series.values():
        bounds = tuple(sorted(counts))
        ordered = tuple(counts[bound] for bound in bounds)
        if math.isinf(bounds[-1]) and all(map(math.isfinite, ordered)):
            made.append(Histogram(bounds, ordered))
    return made
