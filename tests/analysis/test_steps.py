"""Steps read by themselves: the same as those of a whole comparison."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

import nsysmoe
from nsysmoe.analysis.one_trace.timeline import chosen_step
from nsysmoe.analysis.reading.run import read_run
from nsysmoe.analysis.reading.steps import read_step_times
from tests.conftest import DP2, GRAPHS, PAIRS

TRACES = [*DP2.glob("*.sqlite"), *GRAPHS.glob("*.sqlite"), *PAIRS.glob("*/*.sqlite")]


@pytest.mark.parametrize("path", TRACES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_steps_and_which_are_distorted(path: Path) -> None:
    run = read_run(path, with_schedule=True)
    assert run.step_table is not None
    assert run.distorted_steps is not None
    with nsysmoe.open(path) as trace:
        times = read_step_times(trace, with_distorted=True)
        alone = read_step_times(trace, with_distorted=False)
    assert times.table.height
    assert times.table.equals(run.step_table.select(times.table.columns))
    assert times.distorted is not None
    assert times.distorted.equals(run.distorted_steps)
    assert alone.table.equals(times.table)
    assert alone.distorted is None


def test_a_distorted_step_is_chosen_by_its_number_alone() -> None:
    table = pl.DataFrame(
        {
            "slice": [0, 1, 2, 3],
            "step": [None, 5, 6, 7],
            "phase": ["unattributed", "decode", "prefill", "decode"],
            "start_ns": [0, 100, 200, 300],
            "wall_ns": [50, 10, 40, 90],
            "launches": [0, 4, 4, 4],
        }
    )
    distorted = table.filter(pl.col("step") == 7).select("slice")

    def chosen(choice: int | str, phase: str | None = None) -> int:
        row = chosen_step(Path("a.sqlite"), table, distorted, choice, phase)  # type: ignore[arg-type]
        return int(row["step"])

    assert (chosen("slowest"), chosen("median"), chosen(7)) == (6, 5, 7)
    assert chosen("median", "prefill") == 6
    assert chosen_step(Path("a.sqlite"), table, None, "slowest")["step"] == 7
