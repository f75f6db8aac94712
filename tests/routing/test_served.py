"""What a capture's run.json tells of the users' side."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from nsysmoe.analysis.comparing.latency import latency_rows
from nsysmoe.errors import InputError
from nsysmoe.metrics.statistics.uncertainty import interval_over_runs
from nsysmoe.routing.served import SERVED, read_served


def run(folder: Path, tpot_s: float | None, **more: Any) -> str:
    folder.mkdir(parents=True)
    rounds = [
        {"round": name, "summary": {"tpot_p50_s": value, "output_tok_per_s": 100}}
        for name, value in (("control", 0.5), ("profiled", tpot_s))
    ]
    (folder / "run.json").write_text(json.dumps({"capture": {}, "runs": rounds, **more}))
    return str(folder / "trace.sqlite")


def test_means_over_runs_with_and_without_the_profiler(tmp_path: Path) -> None:
    off = [run(tmp_path / f"off{n}", tpot) for n, tpot in enumerate((1.0, 3.0, 2.0))]
    on = [run(tmp_path / "on", 3.0)]
    rows = {row["metric"]: row for row in latency_rows(off, on)}
    assert set(rows) == set(SERVED)
    tpot = rows["tpot_p50_s"]
    assert (tpot["baseline"], tpot["candidate"], tpot["change"]) == (2.0, 3.0, 0.5)
    assert (tpot["baseline_unprofiled"], tpot["change_unprofiled"]) == (0.5, 0.0)
    assert (tpot["baseline_runs"], tpot["candidate_runs"]) == (3, 1)
    assert (tpot["baseline_values"], tpot["candidate_values"]) == ([1.0, 3.0, 2.0], [3.0])
    assert tpot["interval"] is None, "one run an arm has no noise to tell"
    assert rows["ttft_p50_s"]["change"] is None
    assert rows["output_tok_per_s"]["higher_is_better"] is True


def test_intervals_of_what_users_saw_are_those_over_runs(tmp_path: Path) -> None:
    values = ((1.0, 1.1, 0.9), (0.5, 0.52, 0.48))
    off, on = (
        [run(tmp_path / f"{arm}{n}", tpot) for n, tpot in enumerate(values[arm])] for arm in (0, 1)
    )
    row = next(row for row in latency_rows(off, on) if row["metric"] == "tpot_p50_s")
    expected = interval_over_runs(*values)
    assert expected is not None
    assert row["interval"] == asdict(expected)
    assert row["interval"]["low"] < row["change"] < row["interval"]["high"] < 0
    # The control rounds are all alike, and so is their interval.
    assert (row["interval_unprofiled"]["low"], row["interval_unprofiled"]["high"]) == (0, 0)


def test_traces_without_a_record_of_ours_have_no_rows(tmp_path: Path) -> None:
    on = run(tmp_path / "on", 1.0)
    assert latency_rows([str(tmp_path / "off.sqlite")], [on]) == ()
    (tmp_path / "run.json").write_text('{"runs": []}')
    assert read_served(tmp_path / "trace.sqlite") is None


@pytest.mark.parametrize("value", ["x", -1.0, True, None])
def test_values_that_are_no_times_are_not_known(value: Any, tmp_path: Path) -> None:
    found = read_served(Path(run(tmp_path / "a", value)))
    assert found is not None
    assert found.profiled["tpot_p50_s"] is None


def test_a_record_without_rounds_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no list `runs`"):
        read_served(Path(run(tmp_path / "a", 1.0, runs={})))
