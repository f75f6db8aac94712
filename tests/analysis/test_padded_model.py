"""What ``nsysmoe padding report`` makes of a folder, without any model."""

from __future__ import annotations

import json
import subprocess
import sys
from statistics import fmean, pstdev
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest

import nsysmoe
from nsysmoe.errors import InputError, OutputError
from nsysmoe.routing.padded import (
    ChoicesOfBatch,
    new_folder,
    read_padded,
    write_choices,
    write_record,
    write_routing,
)
from tests.cli.test_cli import run

if TYPE_CHECKING:
    from pathlib import Path

# Two batches, one layer of four experts.
REAL = np.array([[[4, 2, 1, 1]], [[3, 3, 2, 0]]])
BEFORE = np.array([[[6, 0, 0, 0]], [[0, 4, 0, 0]]])
AFTER = np.array([[[0, 1, 2, 3]], [[0, 0, 1, 3]]])
TIME = {"experts": "eager", "batch": 0, "baseline_ns": [100, 300, 200],
        "rerouted_ns": [260, 220, 240], "reroute_ns": 24}  # fmt: skip
SAME = {"equal": True, "finite": True, "largest": 0.0, "scale": 2.0, "routes": 8,
        "routes_changed": 0}  # fmt: skip


def record(**changes: Any) -> dict[str, Any]:
    one = {
        "setting": "4x2", "size": 4, "count": 2, "sorted": False, "arms": ["baseline", "rerouted"],
        "batches": [
            {"longest": 4, "real": 4, "padding": 3}, {"longest": 4, "real": 4, "padding": 2},
        ],
        "times": [TIME, {**TIME, "batch": 1, "baseline_ns": [100], "rerouted_ns": [160]}],
        "difference": SAME, "accuracy": None, **changes,
    }  # fmt: skip
    head = {
        "model": "random:<b>tiny</b>", "is_random": False, "is_whole": True, "layers": 1,
        "experts": 4, "top_k": 2, "hidden_size": 8, "dtype": "float32", "device": "cpu",
        "torch": "2", "transformers": "5", "prompts": "p.jsonl", "tokenizer": "whitespace",
        "implementations": ["eager"], "repeats": 3,
    }  # fmt: skip
    return {**head, "runs": [one]}


def written(path: Path, **changes: Any) -> Path:
    counts = {
        "4x2-unsorted-baseline-real": REAL, "4x2-unsorted-baseline-padding": BEFORE,
        "4x2-unsorted-rerouted-real": REAL, "4x2-unsorted-rerouted-padding": AFTER,
    }  # fmt: skip
    with new_folder(path) as folder:
        write_record(folder, record(**changes), counts)
    return path


def cv(values: Any) -> float:
    numbers = np.asarray(values).reshape(-1).tolist()
    return float(pstdev(numbers) / fmean(numbers))


def test_measures_are_those_of_plain_python(tmp_path: Path) -> None:
    (row,) = nsysmoe.padding_report(written(tmp_path / "out")).rows
    assert row["padding_share"] == pytest.approx(5 / 13)
    for name, padding in (("real", 0 * BEFORE), ("baseline", BEFORE), ("rerouted", AFTER)):
        loads = REAL + padding
        assert row[name]["cv"] == pytest.approx(cv(loads.sum(axis=0)))
        assert row[name]["layer_cv"] == pytest.approx(cv(loads.sum(axis=0)))
        assert row[name]["batch_cv"] == pytest.approx(fmean(map(cv, loads)))
        assert row["layers"][0][f"cv_{name}"] == pytest.approx(cv(loads.sum(axis=0)))
        cells = [cell for batch in loads.tolist() for cell in batch]
        assert row[name]["active_experts"] == fmean(sum(map(bool, cell)) for cell in cells)
        assert row[name]["busiest"] == fmean(map(max, cells))
        assert row[name]["blocks"] == row[name]["active_experts"]
        summed = loads.sum(axis=(0, 1)).tolist()
        assert row[name]["layer_max_over_mean"] == pytest.approx(max(summed) / fmean(summed))


def test_blocks_hold_rows_of_one_expert(tmp_path: Path) -> None:
    folder = written(tmp_path / "out")
    with np.load(folder / "counts.npz") as found:
        arrays: dict[str, Any] = {name: found[name].astype(np.int64) for name in found.files}
    arrays["4x2-unsorted-baseline-padding"] = BEFORE * 50
    np.savez(folder / "counts.npz", **arrays)
    (row,) = nsysmoe.padding_report(folder).rows
    # 304, 2, 1 and 1 choices in the first batch; 3, 203 and 2 in the second.
    assert row["baseline"]["blocks"] == ((3 + 1 + 1 + 1) + (1 + 2 + 1)) / 2


def test_times_are_medians_of_medians(tmp_path: Path) -> None:
    (row,) = nsysmoe.padding_report(written(tmp_path / "out")).times
    assert (row["baseline_ns"], row["rerouted_ns"]) == (150, 200)
    assert row["change"] == pytest.approx(0.4)
    assert (row["change_low"], row["change_high"]) == pytest.approx((0.2, 0.6))
    assert row["reroute_share"] == pytest.approx(48 / 400)


def test_sentences_and_page(tmp_path: Path) -> None:
    folder = written(tmp_path / "out")
    found = run("padding", "report", folder)
    assert found.exit_code == 0, found.output
    lines = found.stdout.splitlines()
    assert lines[0].startswith("Unsorted, 38% to 38% of tokens are padding; rerouting it changes")
    assert "With eager rerouting changes the time of a batch by +40.0% to +40.0%" in found.stdout
    assert "Outputs at real tokens are the same, bit for bit, in every batch." in lines
    page = tmp_path / "page.html"
    assert run("padding", "report", folder, "-o", page).exit_code == 0
    text = page.read_text(encoding="utf-8")
    assert "Load of each expert by layer: 4x2-unsorted" in text
    assert "<b>tiny</b>" not in text


def test_outputs_that_differ_are_told(tmp_path: Path) -> None:
    odd = {**SAME, "equal": False, "largest": 0.02, "routes_changed": 3}
    report = nsysmoe.padding_report(written(tmp_path / "out", difference=odd))
    assert report.sentences[-1] == (
        "Outputs at real tokens differ by at most 0.01 of the largest; 3 of their 8 routes differ."
    )
    assert [(one.code, one.severity) for one in report.findings] == [("outputs_differ", "warning")]
    broken = {**odd, "finite": False, "largest": None, "scale": None}
    codes = [
        one.code
        for one in nsysmoe.padding_report(written(tmp_path / "b", difference=broken)).findings
    ]
    assert codes == ["outputs_differ", "not_finite"]


def test_accuracy_is_shown(tmp_path: Path) -> None:
    accuracy = {"questions": 8, "right": {"baseline": 4, "rerouted": 5}, "changed": 1}
    found = run("padding", "report", written(tmp_path / "out", accuracy=accuracy))
    assert "Multiple choice" in found.stdout
    assert "50.0%" in found.stdout
    assert "62.5%" in found.stdout


def test_counts_become_a_routing_log(tmp_path: Path) -> None:
    folder = written(tmp_path / "out")
    (before, after) = write_routing(read_padded(folder))
    assert (before.name, after.name) == (
        "4x2-unsorted-baseline.parquet", "4x2-unsorted-rerouted.parquet"
    )  # fmt: skip
    frame = pl.read_parquet(after)
    both = frame.group_by("expert").agg(pl.col("tokens").sum()).sort("expert")["tokens"].to_list()
    assert both == (REAL + AFTER).sum(axis=(0, 1)).tolist()
    assert frame.filter(pl.col("padding"))["tokens"].sum() == AFTER.sum()
    balance = json.loads(run("routing", "balance", after, "--format", "json").stdout)
    assert balance["choices"] == (REAL + AFTER).sum()
    assert write_routing(read_padded(folder)) == []


def test_choices_become_a_routing_log(tmp_path: Path) -> None:
    folder = written(tmp_path / "out")
    batch = ChoicesOfBatch(
        np.array([7, 5]), np.array([[1, 1], [1, 0]]), np.arange(8).reshape(1, 4, 2) % 4
    )
    write_choices(folder, "4x2-unsorted-baseline", [batch])
    path = write_routing(read_padded(folder))[0]
    rows = pl.read_parquet(path).select("request", "token", "k", "expert", "padding", "step").rows()
    assert rows == [
        ("7", 0, 0, 0, False, 0), ("7", 0, 1, 1, False, 0),
        ("7", 1, 0, 2, False, 0), ("7", 1, 1, 3, False, 0),
        ("5", 0, 0, 0, False, 0), ("5", 0, 1, 1, False, 0),
        ("5", 1, 0, 2, True, 0), ("5", 1, 1, 3, True, 0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("run.json", b"{", "is not JSON"),
        ("run.json", b"[]", "is not of nsysmoe padding run"),
        ("run.json", b'{"model": 1, "layers": 1, "experts": 4, "top_k": 2, "runs": []}', "version"),
        ("counts.npz", b"PK", "cannot be read as numpy arrays"),
    ],
)
def test_damaged_folders(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    folder = written(tmp_path / "out")
    (folder / name).write_bytes(content)
    found = run("padding", "report", folder)
    assert found.exit_code == 1
    assert message in found.stderr
    assert found.stderr.count("\n") == 1


def test_counts_that_do_not_fit(tmp_path: Path) -> None:
    folder = written(tmp_path / "out")
    arrays: dict[str, Any] = {"4x2-unsorted-baseline-real": REAL[:1]}
    np.savez(folder / "counts.npz", **arrays)
    with pytest.raises(InputError, match=r"does not hold 4x2-unsorted-baseline-real as run\.json"):
        read_padded(folder)


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="give the folder of nsysmoe padding run"):
        read_padded(tmp_path)
    (tmp_path / "mine").touch()
    with pytest.raises(OutputError, match="holds something already"), new_folder(tmp_path):
        pass


def test_one_line_without_the_extra(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\nfrom nsysmoe.cli import main\nmain(sys.argv[1:])"
    )
    words = ["padding", "run", "--model", "m", "--prompts", "p", "-o", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "pip install 'nsysmoe[model]'" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_prompts_or_questions(tmp_path: Path) -> None:
    found = run("padding", "run", "--model", "m", "-o", tmp_path / "out")
    assert found.exit_code == 2
    assert "give either --prompts or --eval" in found.stderr
