"""Figures, drawn with plotly: one file a family, from plain rows to a picture.

A picture of portraits is None where none of them has the rows that it is drawn from: the page
then leaves it out. An arm without rows is left out of a picture that the other arm has rows for.
"""

from nsysmoe.reports.pictures.balance import cells_over_time, layer_heatmap
from nsysmoe.reports.pictures.changes import change_intervals
from nsysmoe.reports.pictures.kernels import duration_distributions, time_by_kernel
from nsysmoe.reports.pictures.runs import each_run
from nsysmoe.reports.pictures.stacks import critical_by_phase, wait_and_transfer, where_time_went
from nsysmoe.reports.pictures.timeline import step_timeline
from nsysmoe.reports.pictures.waterfall import wall_time_waterfall

__all__ = [
    "cells_over_time",
    "change_intervals",
    "critical_by_phase",
    "duration_distributions",
    "each_run",
    "layer_heatmap",
    "step_timeline",
    "time_by_kernel",
    "wait_and_transfer",
    "wall_time_waterfall",
    "where_time_went",
]
