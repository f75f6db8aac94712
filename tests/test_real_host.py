"""Stalls and host anatomy on the real exports in the folder that NSYSMOE_TRACES names."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

import nsysmoe
from nsysmoe.analysis.one_trace.host import host
from nsysmoe.analysis.one_trace.stalls import stalls
from nsysmoe.analysis.reading.run import read_run
from tests.test_real_structure import DP2, EAGER, EXPORTS, FOLDER, GRAPHS, name_of, named, unpacked

__all__ = ["unpacked"]

pytestmark = pytest.mark.skipif(not FOLDER, reason="NSYSMOE_TRACES names no folder of exports")


# Slow steps: number, phase, duration in ms, cause.
SLOW: dict[str, list[tuple[int, str, float, str]]] = {
    f"{EAGER}/eplb_off": [(1, "decode", 912.4, "code_load")],
    f"{EAGER}/eplb_on": [(1, "mixed", 875.2, "code_load")],
    f"{GRAPHS}/eplb_off": [],
    f"{GRAPHS}/eplb_on": [(8, "decode", 23.1, "rearrangement")],
    f"{DP2}/eplb_off": [(40, "decode", 958.1, "code_load")],
    f"{DP2}/eplb_on": [],
}
# Loads, rearrangements, and the wall time that each took, ms.
TAKEN: dict[str, tuple[int, float, int, float]] = {
    f"{EAGER}/eplb_off": (16, 909.9, 0, 0.0),
    f"{EAGER}/eplb_on": (16, 861.5, 0, 0.0),
    f"{GRAPHS}/eplb_off": (8, 14.2, 0, 0.0),
    f"{GRAPHS}/eplb_on": (4, 4.7, 1, 14.6),
    f"{DP2}/eplb_off": (8, 944.3, 0, 0.0),
    f"{DP2}/eplb_on": (19, 27.0, 1, 17.0),
}


@pytest.mark.parametrize("name", SLOW)
def test_the_steps_that_something_stopped(unpacked: dict[Path, Path], name: str) -> None:
    found = stalls(named(unpacked, name))
    slow = [row for row in found.rows if row["kind"] == "slow_step"]
    assert [(row["step"], row["phase"], row["cause"]) for row in slow] == [
        (step, phase, cause) for step, phase, _, cause in SLOW[name]
    ]
    assert [row["dur_ns"] / 1e6 for row in slow] == pytest.approx(
        [told for _, _, told, _ in SLOW[name]], abs=0.06
    )
    assert all(row["devices"] == 2 for row in slow)


@pytest.mark.parametrize("name", TAKEN)
def test_what_stalls_took(unpacked: dict[Path, Path], name: str) -> None:
    kinds = stalls(named(unpacked, name)).kinds
    loads, lost, moved, moving = TAKEN[name]
    assert (kinds["code_load"]["stalls"], kinds["rearrangement"]["stalls"]) == (loads, moved)
    assert kinds["code_load"]["lost_ns"] / 1e6 == pytest.approx(lost, abs=0.06)
    assert kinds["rearrangement"]["lost_ns"] / 1e6 == pytest.approx(moving, abs=0.06)
    assert kinds["silence"]["stalls"] == 0


@pytest.mark.parametrize("name", SLOW)
def test_compare_knows_every_slow_step_that_no_rearrangement_made(
    unpacked: dict[Path, Path], name: str
) -> None:
    path = named(unpacked, name)
    distorted = read_run(path, with_schedule=True).distorted_steps
    assert distorted is not None
    slow = {step for step, _, _, cause in SLOW[name] if cause != "rearrangement"}
    assert slow <= set(distorted["step"])


@pytest.mark.parametrize(
    "export", [path for path in EXPORTS if path.parent.name.startswith("vllm")], ids=name_of
)
def test_a_threads_parts_are_its_time(unpacked: dict[Path, Path], export: Path) -> None:
    with nsysmoe.open(unpacked[export]) as trace:
        steps, threads = trace.frame("host_steps"), trace.frame("launching_threads")
        gaps, time = trace.frame("host_gaps"), trace.frame("device_time")
        idle = trace.frame("idle_gaps")
    parts = steps.select("launching_ns", "calling_ns", "blocked_ns", "outside_ns")
    assert (parts.sum_horizontal() == steps["wall_ns"]).all()
    assert steps["outside_ns"].min() >= 0  # type: ignore[operator]
    span = threads["last_launch_ns"] - threads["first_launch_ns"]
    assert steps["wall_ns"].sum() <= span.sum()
    assert idle["dur_ns"].sum() == time["idle_ns"].sum()
    quiet = gaps.filter(pl.col("kind") == "quiet").sort("global_tid", "start_ns")
    for _, thread in quiet.group_by("global_tid"):
        assert (thread["start_ns"][1:] >= thread["end_ns"][:-1]).all()


# Launches and graphs a decode step, share outside calls of GPU 0 and 1.
DECODE: dict[str, tuple[float, float, float, float]] = {
    f"{EAGER}/eplb_off": (198, 0, 0.869, 0.889),
    f"{GRAPHS}/eplb_off": (18, 1, 0.878, 0.802),
    f"{DP2}/eplb_on": (188, 0, 0.894, 0.889),
}


@pytest.mark.parametrize("name", DECODE)
def test_what_a_decode_step_launches(unpacked: dict[Path, Path], name: str) -> None:
    ranks = [row for row in host(named(unpacked, name)).ranks if row["phase"] == "decode"]
    launches, graphs, *outside = DECODE[name]
    assert {(row["launches"], row["graph_launches"]) for row in ranks} == {(launches, graphs)}
    assert [row["outside"] for row in ranks] == pytest.approx(outside, abs=6e-4)


def test_the_profiled_round_against_the_one_before(unpacked: dict[Path, Path]) -> None:
    path = named(unpacked, f"{GRAPHS}/eplb_off")
    rounds = Path(FOLDER or "") / GRAPHS / "eplb_off.run.json"
    if not rounds.exists():
        pytest.skip("no run.json beside the trace")
    latency = host(path, run_json=rounds).latency
    assert latency is not None
    assert latency["tpot"] is not None
    assert latency["tpot"]["change"] == pytest.approx(0.0454, abs=1e-4)
    assert latency["tpot"]["control_spread"] == pytest.approx(0.104, abs=1e-3)
    assert (latency["tpot"]["profiled_requests"], latency["tpot"]["control_rounds"]) == (32, 2)


def test_overheads_while_gpus_worked(unpacked: dict[Path, Path]) -> None:
    found = host(named(unpacked, f"{EAGER}/eplb_off"))
    own = [row for row in found.overheads if row["origin"] == "profiler"]
    assert sum(row["added_ns"] for row in own) / 1e6 == pytest.approx(100.66, abs=0.006)
    assert sum(row["in_window_ns"] for row in own) / 1e6 == pytest.approx(57.26, abs=0.006)
    assert sum(row["on_launching_ns"] for row in own) == 0
