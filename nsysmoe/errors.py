"""What can go wrong, one sentence each; the command line prints the message and exits with 1."""

from __future__ import annotations


class NsysmoeError(Exception):
    """Base of every error that a user can mend; its text says what, where and the fix."""


class InputError(NsysmoeError):
    """An input is missing, unreadable, damaged, or not what nsys writes."""


class MissingDataError(NsysmoeError):
    """An input is sound but does not hold what the question needs."""


class ClassMapError(NsysmoeError):
    """A file of kernel classes cannot be used."""


class QueryError(NsysmoeError):
    """A query over the views is not allowed or not valid."""


class OutputError(NsysmoeError):
    """A report cannot be written where it was asked for."""


class GateError(NsysmoeError):
    """A gate is on a metric that cannot be judged."""


class RoutingError(NsysmoeError):
    """A routing log does not fit the trace that it was given for."""


class CaptureError(NsysmoeError):
    """A capture cannot be planned, or did not come to its end."""


class PlacementError(NsysmoeError):
    """Experts cannot be placed as asked, or a map does not fit the loads."""


class TrafficError(NsysmoeError):
    """A replay of requests cannot start, or cannot go on."""


class WatchError(NsysmoeError):
    """What is to be watched, or the thresholds for it, cannot be used."""
