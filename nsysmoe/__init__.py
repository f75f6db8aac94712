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
    from nsysmoe.analysis.advise import advise
    from nsysmoe.analysis.balance import balance as routing_balance
    from nsysmoe.analysis.bound import bound
    from nsysmoe.analysis.compare import compare
    from nsysmoe.analysis.comparison import Comparison
    from nsysmoe.analysis.correlation import correlation as correlate
    from nsysmoe.analysis.doctor import doctor
    from nsysmoe.analysis.figures import figures
    from nsysmoe.analysis.gathering import Gathering
    from nsysmoe.analysis.host import host
    from nsysmoe.analysis.info import describe
    from nsysmoe.analysis.kernels import kernel_table
    from nsysmoe.analysis.padded_model import padding_report
    from nsysmoe.analysis.padding import padding as routing_padding
    from nsysmoe.analysis.patterns import patterns as routing_patterns
    from nsysmoe.analysis.placement import Memory
    from nsysmoe.analysis.placement import evaluate as evaluate_placement
    from nsysmoe.analysis.placement import plan as plan_placement
    from nsysmoe.analysis.routed_placement import evaluate_routed as evaluate_routed_placement
    from nsysmoe.analysis.routed_placement import plan_routed as plan_routed_placement
    from nsysmoe.analysis.routing_load import Beside
    from nsysmoe.analysis.routing_load import load as load_routing
    from nsysmoe.analysis.sizing import Layout, size
    from nsysmoe.analysis.sizing import Limits as SizeLimits
    from nsysmoe.analysis.stalls import stalls
    from nsysmoe.analysis.summary import summarize
    from nsysmoe.analysis.sweep import collect as collect_sweep
    from nsysmoe.analysis.traffic import replay
    from nsysmoe.analysis.waits import waits
    from nsysmoe.analysis.whatif import Change as WhatIfChange
    from nsysmoe.analysis.whatif import whatif
    from nsysmoe.analysis.workload_score import workload_score as score_workload
    from nsysmoe.analysis.workload_suite import Plan as WorkloadPlan
    from nsysmoe.analysis.workload_suite import generate as generate_workload
    from nsysmoe.classes import ClassMap, default_class_map
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
    "routing_balance": ("nsysmoe.analysis.balance", "balance"),
    "plan_placement": ("nsysmoe.analysis.placement", "plan"),
    "evaluate_routed_placement": ("nsysmoe.analysis.routed_placement", "evaluate_routed"),
    "plan_routed_placement": ("nsysmoe.analysis.routed_placement", "plan_routed"),
    "load_routing": ("nsysmoe.analysis.routing_load", "load"),
    "evaluate_placement": ("nsysmoe.analysis.placement", "evaluate"),
    "advise": ("nsysmoe.analysis.advise", "advise"),
    "routing_padding": ("nsysmoe.analysis.padding", "padding"),
    "routing_patterns": ("nsysmoe.analysis.patterns", "patterns"),
    "Beside": ("nsysmoe.analysis.routing_load", "Beside"),
    "Cluster": ("nsysmoe.placement.cluster", "Cluster"),
    "Memory": ("nsysmoe.analysis.placement", "Memory"),
    "ClassMap": ("nsysmoe.classes", "ClassMap"),
    "Comparison": ("nsysmoe.analysis.comparison", "Comparison"),
    "Finding": ("nsysmoe.findings", "Finding"),
    "Gathering": ("nsysmoe.analysis.gathering", "Gathering"),
    "NsysmoeError": ("nsysmoe.errors", "NsysmoeError"),
    "Layout": ("nsysmoe.analysis.sizing", "Layout"),
    "SizeLimits": ("nsysmoe.analysis.sizing", "Limits"),
    "size": ("nsysmoe.analysis.sizing", "size"),
    "snapshot": ("nsysmoe.watch.watcher", "snapshot"),
    "ReplayOptions": ("nsysmoe.traffic.run", "Options"),
    "Trace": ("nsysmoe.trace", "Trace"),
    "WhatIfChange": ("nsysmoe.analysis.whatif", "Change"),
    "bound": ("nsysmoe.analysis.bound", "bound"),
    "catalogue": ("nsysmoe.trace", "catalogue"),
    "collect_sweep": ("nsysmoe.analysis.sweep", "collect"),
    "correlate": ("nsysmoe.analysis.correlation", "correlation"),
    "figures": ("nsysmoe.analysis.figures", "figures"),
    "generate_workload": ("nsysmoe.analysis.workload_suite", "generate"),
    "score_workload": ("nsysmoe.analysis.workload_score", "workload_score"),
    "sweep_runs": ("nsysmoe.sweep.grid", "runs_of"),
    "SweepGrid": ("nsysmoe.sweep.grid", "Grid"),
    "WorkloadPlan": ("nsysmoe.analysis.workload_suite", "Plan"),
    "compare": ("nsysmoe.analysis.compare", "compare"),
    "configure": ("nsysmoe.resources", "configure"),
    "default_class_map": ("nsysmoe.classes", "default_class_map"),
    "describe": ("nsysmoe.analysis.info", "describe"),
    "doctor": ("nsysmoe.analysis.doctor", "doctor"),
    "host": ("nsysmoe.analysis.host", "host"),
    "kernel_table": ("nsysmoe.analysis.kernels", "kernel_table"),
    "open": ("nsysmoe.trace", "open_trace"),
    "replay": ("nsysmoe.analysis.traffic", "replay"),
    "padding_report": ("nsysmoe.analysis.padded_model", "padding_report"),
    "run_padding": ("nsysmoe.model.measure", "run"),
    "stalls": ("nsysmoe.analysis.stalls", "stalls"),
    "summarize": ("nsysmoe.analysis.summary", "summarize"),
    "waits": ("nsysmoe.analysis.waits", "waits"),
    "whatif": ("nsysmoe.analysis.whatif", "whatif"),
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
    "kernel_table",
    "load_routing",
    "open",
    "padding_report",
    "plan_placement",
    "plan_routed_placement",
    "replay",
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
