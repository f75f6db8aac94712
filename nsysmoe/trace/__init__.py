"""Traces behind documented SQL views; the only package that talks to DuckDB."""

from nsysmoe.trace.catalogue import View, ViewColumn, catalogue
from nsysmoe.trace.trace import Trace, open_trace

__all__ = ["Trace", "View", "ViewColumn", "catalogue", "open_trace"]
