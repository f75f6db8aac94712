"""Where the work on each file of a run is done: here, in processes of this machine, or on Ray."""

from nsysmoe.engines.engine import Engine, Here, engine_named

__all__ = ["Engine", "Here", "engine_named"]
