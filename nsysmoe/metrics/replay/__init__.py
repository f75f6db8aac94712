"""Replay of a trace under other costs: inputs, what waited for what, the walk, and windows."""

from nsysmoe.metrics.replay.inputs import host_of, on_one_clock, work_of
from nsysmoe.metrics.replay.model import NONE, Host, Model, Work
from nsysmoe.metrics.replay.walk import Scenario, is_fast, replay
from nsysmoe.metrics.replay.windows import Boundaries, boundaries, phase_walls

__all__ = [
    "NONE",
    "Boundaries",
    "Host",
    "Model",
    "Scenario",
    "Work",
    "boundaries",
    "host_of",
    "is_fast",
    "on_one_clock",
    "phase_walls",
    "replay",
    "work_of",
]
