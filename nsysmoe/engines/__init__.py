"""Where the work on each file of a run is done: here, in processes of this machine, or on Ray."""

from nsysmoe.engines.by_name import engine_named
from nsysmoe.engines.engine import Engine
from nsysmoe.engines.here import Here

__all__ = ["Engine", "Here", "engine_named"]
