"""Which token chose which expert, and where experts live: what is read beside a trace."""

from nsysmoe.routing.engines import Meetings, replay_engines
from nsysmoe.routing.experts import Placement, PlacementHistory, contiguous
from nsysmoe.routing.log import RoutingLog, read_vllm_log
from nsysmoe.routing.model import ModelShape, read_model
from nsysmoe.routing.run import RunRecord, read_run, record_beside
from nsysmoe.routing.schedule import replay

__all__ = [
    "Meetings",
    "ModelShape",
    "Placement",
    "PlacementHistory",
    "RoutingLog",
    "RunRecord",
    "contiguous",
    "read_model",
    "read_run",
    "read_vllm_log",
    "record_beside",
    "replay",
    "replay_engines",
]
