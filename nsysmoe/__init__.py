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
    from nsysmoe.analysis.host import host
    from nsysmoe.analysis.info import describe
    from nsysmoe.analysis.kernels import kernel_table
    from nsysmoe.analysis.placement import evaluate as evaluate_placement
    from nsysmoe.analysis.placement import plan as plan_placement
    from nsysmoe.analysis.routing_load import load as load_routing
    from nsysmoe.analysis.stalls import stalls
    from nsysmoe.analysis.summary import summarize
    from nsysmoe.analysis.waits import waits
    from nsysmoe.analysis.whatif import Change as WhatIfChange
    from nsysmoe.analysis.whatif import whatif
    from nsysmoe.classes import ClassMap, default_class_map
    from nsysmoe.errors import NsysmoeError
    from nsysmoe.findings import Finding
    from nsysmoe.resources import configure
    from nsysmoe.trace import Trace, catalogue
    from nsysmoe.trace import open_trace as open  # noqa: A004 - nsysmoe.open, as in gzip.open

__version__ = "0.1.0"

_HOMES = {
    "routing_balance": ("nsysmoe.analysis.balance", "balance"),
    "plan_placement": ("nsysmoe.analysis.placement", "plan"),
    "load_routing": ("nsysmoe.analysis.routing_load", "load"),
    "evaluate_placement": ("nsysmoe.analysis.placement", "evaluate"),
    "advise": ("nsysmoe.analysis.advise", "advise"),
    "ClassMap": ("nsysmoe.classes", "ClassMap"),
    "Comparison": ("nsysmoe.analysis.comparison", "Comparison"),
    "Finding": ("nsysmoe.findings", "Finding"),
    "NsysmoeError": ("nsysmoe.errors", "NsysmoeError"),
    "Trace": ("nsysmoe.trace", "Trace"),
    "WhatIfChange": ("nsysmoe.analysis.whatif", "Change"),
    "bound": ("nsysmoe.analysis.bound", "bound"),
    "catalogue": ("nsysmoe.trace", "catalogue"),
    "compare": ("nsysmoe.analysis.compare", "compare"),
    "configure": ("nsysmoe.resources", "configure"),
    "default_class_map": ("nsysmoe.classes", "default_class_map"),
    "describe": ("nsysmoe.analysis.info", "describe"),
    "host": ("nsysmoe.analysis.host", "host"),
    "kernel_table": ("nsysmoe.analysis.kernels", "kernel_table"),
    "open": ("nsysmoe.trace", "open_trace"),
    "stalls": ("nsysmoe.analysis.stalls", "stalls"),
    "summarize": ("nsysmoe.analysis.summary", "summarize"),
    "waits": ("nsysmoe.analysis.waits", "waits"),
    "whatif": ("nsysmoe.analysis.whatif", "whatif"),
}

__all__ = [
    "ClassMap",
    "Comparison",
    "Finding",
    "NsysmoeError",
    "Trace",
    "WhatIfChange",
    "advise",
    "bound",
    "catalogue",
    "compare",
    "configure",
    "default_class_map",
    "describe",
    "evaluate_placement",
    "host",
    "kernel_table",
    "load_routing",
    "open",
    "plan_placement",
    "routing_balance",
    "stalls",
    "summarize",
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
