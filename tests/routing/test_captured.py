"""``routing.parquet`` of a captured run: what vLLM returned, with phases and steps."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from nsysmoe.analysis.routing.routed import Choices, Inputs, read_arm, write_captured
from nsysmoe.errors import InputError
from nsysmoe.routing.captured import write_routing
from nsysmoe.routing.convert import logs_of, open_log
from nsysmoe.routing.forms import TOKENS_SCHEMA
from tests.conftest import GRAPHS

NAMES = {"trace.sqlite": "sqlite", "routing.npz": "routed.npz", "run.json": "run.json"}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Return the folder of a real run, as a capture leaves it."""
    for name, end in NAMES.items():
        shutil.copy(GRAPHS / f"eplb_off.{end}", tmp_path / name)
    return tmp_path


def test_steps_are_those_of_the_replay(run: Path) -> None:
    written = write_captured(run, "off/run-1")
    assert written == run / "routing.parquet"
    rows = pl.read_parquet(written)
    assert rows.schema == pl.Schema(TOKENS_SCHEMA)
    assert set(rows["run"]) == {"off/run-1"}
    key = ["step", "layer", "expert"]
    arm = read_arm(Inputs(*(run / name for name in NAMES)), Choices())
    counted = arm.choices.group_by(key).len().sort(key)
    found = rows.drop_nulls("step").group_by(key).len().sort(key)
    assert found.select(key).rows() == counted.select(key).rows()
    assert found["len"].to_list() == counted["len"].to_list()
    # The trace of the fixture ends before the run does.
    assert 0 < rows["step"].null_count() < rows.height
    with np.load(run / "routing.npz") as arrays:
        assert rows.height == sum(arrays[name].size for name in arrays.files)
    prompts = [row["prompt_tokens"] for row in record(run)["runs"][-1]["requests"]]
    prefill = rows.filter(phase="prefill").group_by("request").agg(pl.col("token").max() + 1)
    assert set(prefill["token"]) == set(prompts)


def record(run: Path) -> dict[str, list[dict[str, list[dict[str, int]]]]]:
    read: dict[str, list[dict[str, list[dict[str, int]]]]] = json.loads(
        (run / "run.json").read_text(encoding="utf-8")
    )
    return read


def test_folders_of_runs_are_read_as_their_routing(run: Path, tmp_path: Path) -> None:
    arm = tmp_path / "runs" / "off"
    for number in (1, 2):
        (arm / f"run-{number}").mkdir(parents=True)
        for name in NAMES:
            shutil.copy(run / name, arm / f"run-{number}" / name)
    found = [str(path.relative_to(arm)) for path in logs_of([arm])]
    assert found == ["run-1/routing.npz", "run-2/routing.npz"]
    assert write_captured(arm / "run-2", "off/run-2")
    assert [path.name for path in logs_of([arm])] == ["routing.npz", "routing.parquet"]
    assert [path.name for path in logs_of([arm / "run-2"])] == ["routing.parquet"]
    batches = [batch for log in logs_of([arm]) for batch in open_log(log).batches]
    names = {name for batch in batches for name in batch["run"]}
    assert names == {"off/run-1", "off/run-2"}


def test_without_steps_it_is_written_all_the_same(run: Path) -> None:
    assert write_routing(run, "a") == run / "routing.parquet"
    rows = pl.read_parquet(run / "routing.parquet")
    assert rows["step"].null_count() == rows.height
    assert rows["phase"].null_count() == 0


def test_a_run_without_a_trace_keeps_its_routing(run: Path) -> None:
    (run / "trace.sqlite").unlink()
    assert write_captured(run, "a") == run / "routing.parquet"
    assert pl.read_parquet(run / "routing.parquet")["step"].null_count() > 0


def test_a_run_without_returned_experts_has_none(run: Path) -> None:
    (run / "routing.npz").unlink()
    assert write_captured(run, "a") is None
    assert write_routing(run, "a") is None
    assert not (run / "routing.parquet").exists()


def test_arrays_of_another_run_are_refused_and_nothing_is_left(run: Path) -> None:
    before = {path.name for path in run.iterdir()}
    np.savez(run / "routing.npz", r0=np.zeros((3, 8, 2), dtype=np.uint8))
    with pytest.raises(InputError, match="holds 1 requests"):
        write_captured(run, "a")
    shutil.copy(GRAPHS / "eplb_off.routed.npz", run / "routing.npz")
    changed = record(run)
    for row in changed["runs"][-1]["requests"]:
        row["output_tokens"] = 1
    (run / "run.json").write_text(json.dumps(changed), encoding="utf-8")
    slices = pl.DataFrame({"step": [0], "request": [0], "first": [0], "tokens": [3]})
    with pytest.raises(InputError, match="by the record it fed"):
        write_routing(run, "a", slices)
    (run / "routing.npz").write_bytes(b"PK")
    with pytest.raises(InputError, match="cannot be read"):
        write_captured(run, "a")
    assert {path.name for path in run.iterdir()} == before
