"""Which runs count, by small traces that each lack one thing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fixtures.builder import TraceBuilder
from nsysmoe.capture.preflight import Check
from nsysmoe.capture.verify import Expected, failed, judge, judge_arm, look
from tests.capture.node import trace

ON = Expected(2, is_balanced=True, rearrange="before", vllm="0.26.0")
OFF = Expected(2, is_balanced=False, rearrange="before", vllm="0.26.0")
BEFORE = {"before": 1, "inside": 0}


def run(folder: Path, counted: dict[str, int] | None = None, log: str = "", step: int = 1) -> Path:
    """Write what stands beside a trace."""
    after = [None, {"step": step, "interval": 128}]
    (folder / "run.json").write_text(json.dumps({"rearrangements": counted, "eplb_after": after}))
    (folder / "engine.log").write_text(log)
    return folder


def bad(expected: Expected, folder: Path) -> list[str]:
    return [check.what for check in failed(judge(expected, look(folder)))]


def test_runs_that_count(tmp_path: Path) -> None:
    trace(tmp_path / "trace.sqlite", eplb=True)
    assert bad(ON, run(tmp_path, BEFORE)) == []
    (tmp_path / "trace.sqlite").unlink()
    trace(tmp_path / "trace.sqlite", eplb=False)
    assert bad(OFF, run(tmp_path)) == []


@pytest.mark.parametrize(
    ("expected", "make", "what"),
    [
        (OFF, lambda path: trace(path, eplb=False, ranks=1), "ranks"),
        (OFF, lambda path: trace(path, eplb=True), "EPLB"),
        (ON, lambda path: trace(path, eplb=False), "EPLB"),
        (OFF, lambda path: trace(path, eplb=False, launches=0), "MoE kernels"),
    ],
)
def test_runs_that_do_not(
    expected: Expected, make: Callable[[Path], Path], what: str, tmp_path: Path
) -> None:
    make(tmp_path / "trace.sqlite")
    assert what in bad(expected, run(tmp_path, BEFORE))


def test_a_module_load_inside_the_range(tmp_path: Path) -> None:
    build = TraceBuilder().gpu(0).process(1, "python3").device(1, 0, 0)
    build.kernel("fused_moe_kernel", 100, 10, device=0, pid=1)
    build.call(10, 20, correlation=7, name="cuModuleLoadData", pid=1)
    build.write(tmp_path / "trace.sqlite")
    one = Expected(1, is_balanced=False, rearrange="any", vllm="0.26.0")
    assert bad(one, run(tmp_path)) == ["code loads"]
    assert bad(replace(one, allows_code_loads=True), run(tmp_path)) == []


@pytest.mark.parametrize(
    ("rearrange", "counted", "log", "is_bad"),
    [
        ("before", {"before": 0, "inside": 1}, "", True),
        ("before", {"before": 2, "inside": 1}, "", False),
        ("before", None, "Rearranged experts in 0.2 seconds.", False),
        ("before", None, "Rearranged experts (profile) in 0.2 seconds.", False),
        ("inside", {"before": 1, "inside": 0}, "", True),
        ("inside", {"before": 1, "inside": 1}, "", False),
        ("any", {"before": 0, "inside": 0}, "", False),
    ],
)
def test_where_experts_were_rearranged(
    rearrange: str, counted: dict[str, int] | None, log: str, is_bad: bool, tmp_path: Path
) -> None:
    trace(tmp_path / "trace.sqlite", eplb=True)
    expected = Expected(2, is_balanced=True, rearrange=rearrange, vllm="0.26.0")
    assert (bad(expected, run(tmp_path, counted, log)) == ["rearrangement"]) == is_bad


def test_before_the_map_kernel_the_log_tells(tmp_path: Path) -> None:
    trace(tmp_path / "trace.sqlite", eplb=False)
    old = Expected(2, is_balanced=True, rearrange="before", vllm="0.15.1")
    assert bad(old, run(tmp_path, BEFORE, "Rearranged experts in 0.2 seconds.")) == []
    assert bad(old, run(tmp_path, BEFORE, "Rearranged experts (profile) in 0.2 s")) == ["EPLB"]


def test_equal_work_is_said() -> None:
    assert judge_arm("off", {1: 8, 2: 8}).status == "ok"
    found = judge_arm("off", {1: 8, 2: 9})
    assert found == Check("runs of off", "warn", "MoE launches differ from run to run: 8 to 9")


def test_experts_that_still_move(tmp_path: Path) -> None:
    """Asynchronous EPLB moves layer after layer: its counter runs on past the interval."""
    trace(tmp_path / "trace.sqlite", eplb=True)
    found = failed(judge(ON, look(run(tmp_path, {"before": 0, "inside": 0}, step=864))))
    assert [check.what for check in found] == ["rearrangement"]
    assert "864 steps after that began, with one due every 128" in found[0].said
    assert "--no-eplb-async" in found[0].fix
    assert bad(ON, run(tmp_path, BEFORE, step=128)) == []
