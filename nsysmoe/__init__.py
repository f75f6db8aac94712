"""Answers from Nsight Systems traces of Mixture-of-Experts serving.

>>> import nsysmoe
>>> nsysmoe.open("off.sqlite").frame("moe_kernels")          # doctest: +SKIP
>>> nsysmoe.compare("off.sqlite", "on.sqlite").metrics       # doctest: +SKIP

Everything here loads on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nsysmoe.analysis.comparing.compare import compare
    from nsysmoe.analysis.comparing.comparison import Comparison
    from nsysmoe.analysis.comparing.report import report
    from nsysmoe.analysis.doctor import doctor
    from nsysmoe.analysis.experiments.correlation import correlation as correlate
    from nsysmoe.analysis.experiments.figures import figures
    from nsysmoe.analysis.experiments.sweep import collect as collect_sweep
    from nsysmoe.analysis.experiments.traffic import replay
    from nsysmoe.analysis.experiments.workload_score import workload_score as score_workload
    from nsysmoe.analysis.experiments.workload_suite import Plan as WorkloadPlan
    from nsysmoe.analysis.experiments.workload_suite import generate as generate_workload
    from nsysmoe.analysis.one_trace.bound import bound
    from nsysmoe.analysis.one_trace.host import host
    from nsysmoe.analysis.one_trace.info import describe
    from nsysmoe.analysis.one_trace.kernels import kernel_table
    from nsysmoe.analysis.one_trace.stalls import stalls
    from nsysmoe.analysis.one_trace.summary import summarize
    from nsysmoe.analysis.one_trace.waits import waits
    from nsysmoe.analysis.one_trace.whatif import Change as WhatIfChange
    from nsysmoe.analysis.one_trace.whatif import whatif
    from nsysmoe.analysis.placing.advise import advise
    from nsysmoe.analysis.placing.placement import Memory
    from nsysmoe.analysis.placing.placement import evaluate as evaluate_placement
    from nsysmoe.analysis.placing.placement import plan as plan_placement
    from nsysmoe.analysis.placing.routed_placement import (
        evaluate_routed as evaluate_routed_placement,
    )
    from nsysmoe.analysis.placing.routed_placement import plan_routed as plan_routed_placement
    from nsysmoe.analysis.placing.sizing import Layout, size
    from nsysmoe.analysis.placing.sizing import Limits as SizeLimits
    from nsysmoe.analysis.reading.gathering import Gathering
    from nsysmoe.analysis.routing.balance import balance as routing_balance
    from nsysmoe.analysis.routing.padded_model import padding_report
    from nsysmoe.analysis.routing.padding import padding as routing_padding
    from nsysmoe.analysis.routing.patterns import patterns as routing_patterns
    from nsysmoe.analysis.routing.routing_load import Beside
    from nsysmoe.analysis.routing.routing_load import load as load_routing
    from nsysmoe.classes import ClassMap, default_class_map
    from nsysmoe.engines.processes import kept_workers
    from nsysmoe.errors import NsysmoeError
    from nsysmoe.findings import Finding
    from nsysmoe.model.measure import run as run_padding
    from nsysmoe.placement.cluster import Cluster
    from nsysmoe.resources import configure
    from nsysmoe.sweep.grid import Grid as SweepGrid
    from nsysmoe.sweep.grid import runs_of as sweep_runs
    from nsysmoe.trace import Trace, catalogue
    from nsysmoe.trace import open_trace as open  # noqa: A004 - nsysmoe.open, as in gzip.open
    from nsysmoe.traffic.run import Options as ReplayOptions
    from nsysmoe.watch.watcher import snapshot

__version__ = "0.1.0"

_HOMES = {
    "routing_balance": ("nsysmoe.analysis.routing.balance", "balance"),
    "plan_placement": ("nsysmoe.analysis.placing.placement", "plan"),
    "evaluate_routed_placement": ("nsysmoe.analysis.placing.routed_placement", "evaluate_routed"),
    "plan_routed_placement": ("nsysmoe.analysis.placing.routed_placement", "plan_routed"),
    "load_routing": ("nsysmoe.analysis.routing.routing_load", "load"),
    "evaluate_placement": ("nsysmoe.analysis.placing.placement", "evaluate"),
    "advise": ("nsysmoe.analysis.placing.advise", "advise"),
    "routing_padding": ("nsysmoe.analysis.routing.padding", "padding"),
    "routing_patterns": ("nsysmoe.analysis.routing.patterns", "patterns"),
    "Beside": ("nsysmoe.analysis.routing.routing_load", "Beside"),
    "Cluster": ("nsysmoe.placement.cluster", "Cluster"),
    "Memory": ("nsysmoe.analysis.placing.placement", "Memory"),
    "ClassMap": ("nsysmoe.classes", "ClassMap"),
    "Comparison": ("nsysmoe.analysis.comparing.comparison", "Comparison"),
    "Finding": ("nsysmoe.findings", "Finding"),
    "Gathering": ("nsysmoe.analysis.reading.gathering", "Gathering"),
    "NsysmoeError": ("nsysmoe.errors", "NsysmoeError"),
    "Layout": ("nsysmoe.analysis.placing.sizing", "Layout"),
    "SizeLimits": ("nsysmoe.analysis.placing.sizing", "Limits"),
    "size": ("nsysmoe.analysis.placing.sizing", "size"),
    "snapshot": ("nsysmoe.watch.watcher", "snapshot"),
    "ReplayOptions": ("nsysmoe.traffic.run", "Options"),
    "Trace": ("nsysmoe.trace", "Trace"),
    "WhatIfChange": ("nsysmoe.analysis.one_trace.whatif", "Change"),
    "bound": ("nsysmoe.analysis.one_trace.bound", "bound"),
    "catalogue": ("nsysmoe.trace", "catalogue"),
    "collect_sweep": ("nsysmoe.analysis.experiments.sweep", "collect"),
    "correlate": ("nsysmoe.analysis.experiments.correlation", "correlation"),
    "figures": ("nsysmoe.analysis.experiments.figures", "figures"),
    "generate_workload": ("nsysmoe.analysis.experiments.workload_suite", "generate"),
    "score_workload": ("nsysmoe.analysis.experiments.workload_score", "workload_score"),
    "sweep_runs": ("nsysmoe.sweep.grid", "runs_of"),
    "SweepGrid": ("nsysmoe.sweep.grid", "Grid"),
    "WorkloadPlan": ("nsysmoe.analysis.experiments.workload_suite", "Plan"),
    "compare": ("nsysmoe.analysis.comparing.compare", "compare"),
    "configure": ("nsysmoe.resources", "configure"),
    "default_class_map": ("nsysmoe.classes", "default_class_map"),
    "describe": ("nsysmoe.analysis.one_trace.info", "describe"),
    "doctor": ("nsysmoe.analysis.doctor", "doctor"),
    "host": ("nsysmoe.analysis.one_trace.host", "host"),
    "kept_workers": ("nsysmoe.engines.processes", "kept_workers"),
    "kernel_table": ("nsysmoe.analysis.one_trace.kernels", "kernel_table"),
    "open": ("nsysmoe.trace", "open_trace"),
    "report": ("nsysmoe.analysis.comparing.report", "report"),
    "replay": ("nsysmoe.analysis.experiments.traffic", "replay"),
    "padding_report": ("nsysmoe.analysis.routing.padded_model", "padding_report"),
    "run_padding": ("nsysmoe.model.measure", "run"),
    "stalls": ("nsysmoe.analysis.one_trace.stalls", "stalls"),
    "summarize": ("nsysmoe.analysis.one_trace.summary", "summarize"),
    "waits": ("nsysmoe.analysis.one_trace.waits", "waits"),
    "whatif": ("nsysmoe.analysis.one_trace.whatif", "whatif"),
}

__all__ = [
    "Beside",
    "ClassMap",
    "Cluster",
    "Comparison",
    "Finding",
    "Gathering",
    "Layout",
    "Memory",
    "NsysmoeError",
    "ReplayOptions",
    "SizeLimits",
    "SweepGrid",
    "Trace",
    "WhatIfChange",
    "WorkloadPlan",
    "advise",
    "bound",
    "catalogue",
    "collect_sweep",
    "compare",
    "configure",
    "correlate",
    "default_class_map",
    "describe",
    "doctor",
    "evaluate_placement",
    "evaluate_routed_placement",
    "figures",
    "generate_workload",
    "host",
    "kept_workers",
    "kernel_table",
    "load_routing",
    "open",
    "padding_report",
    "plan_placement",
    "plan_routed_placement",
    "replay",
    "report",
    "routing_balance",
    "routing_padding",
    "routing_patterns",
    "run_padding",
    "score_workload",
    "size",
    "snapshot",
    "stalls",
    "summarize",
    "sweep_runs",
    "waits",
    "whatif",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'nsysmoe' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
