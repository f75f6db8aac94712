"""``nsysmoe padding run`` as a user runs it, on small models on the CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from tests.cli.test_cli import run
from tests.model.models import WORDS, config_file, prompts_file, saved_model

if TYPE_CHECKING:
    from pathlib import Path

torch = pytest.importorskip("torch", reason="torch is in nsysmoe[model]")
pytest.importorskip("transformers", reason="transformers is in nsysmoe[model]")

pytestmark = pytest.mark.filterwarnings("ignore")
torch.set_num_threads(1)
LENGTHS = [3, 9, 4, 12, 5, 20, 2, 7, 6, 11, 3, 8]
QUICK = ("--timed", "1", "--repeats", "1", "--device", "cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run of two settings, sorted and not, leaves."""
    place = tmp_path_factory.mktemp("run")
    model = config_file(place / "model")
    prompts = prompts_file(place / "prompts.jsonl", LENGTHS)
    found = run(
        "padding", "run", "--model", f"random:{model}", "--prompts", prompts, "--batches",
        "2x6,4x3", "--sorted", "--reroute", "--experts", "batched_mm,eager", *QUICK,
        "-o", place / "out",
    )  # fmt: skip
    assert found.exit_code == 0, found.output
    assert "4x3-sorted: 3 batches seen in" in found.stderr
    return place / "out"


def test_everything_is_in_the_report(folder: Path) -> None:
    found = run("padding", "report", folder, "--format", "json")
    assert found.exit_code == 0, found.output
    report = json.loads(found.stdout)
    rows = {row["run"]: row for row in report["runs"]}
    assert set(rows) == {"2x6-unsorted", "4x3-unsorted", "2x6-sorted", "4x3-sorted"}
    for row in rows.values():
        assert row["real_tokens"] == sum(LENGTHS)
        assert row["rerouted"]["batch_cv"] < row["baseline"]["batch_cv"]
        assert row["difference"]["equal"]
        assert row["difference"]["routes"] == sum(LENGTHS) * 2
        assert len(row["layers"]) == 2
    assert rows["4x3-sorted"]["padding_tokens"] < rows["4x3-unsorted"]["padding_tokens"]
    # The same tokens choose the same experts, whatever batch they are in.
    assert rows["4x3-unsorted"]["real"]["cv"] == rows["4x3-sorted"]["real"]["cv"]
    assert {row["experts"] for row in report["times"]} == {"batched_mm", "eager"}
    assert all(row["reroute_share"] > 0 for row in report["times"])
    assert [finding["code"] for finding in report["findings"]] == ["random_weights"]


def test_routing_commands_take_the_choices(folder: Path) -> None:
    paths = sorted((folder / "routing").iterdir())
    assert len(paths) == 8
    assert not list(folder.glob("choices-*"))
    frame = pl.read_parquet(folder / "routing" / "4x3-unsorted-rerouted.parquet")
    tokens = frame.filter(pl.col("layer") == 0, pl.col("k") == 0)
    assert tokens.filter(~pl.col("padding")).height == sum(LENGTHS)
    lengths = tokens.filter(~pl.col("padding")).group_by("request").len().sort(
        pl.col("request").cast(int)
    )  # fmt: skip
    assert lengths["len"].to_list() == LENGTHS
    # Padding stands behind the prompt, and every batch is as long as its longest.
    assert tokens.group_by("step").len().sort("step")["len"].to_list() == [48, 80, 44]
    found = run("routing", "balance", folder / "routing" / "4x3-unsorted-rerouted.parquet",
                "--format", "json")  # fmt: skip
    balance = json.loads(found.stdout)
    assert (balance["layers"], balance["top_k"], balance["steps"]) == (2, 3, 3)
    assert balance["choices"] == (48 + 80 + 44) * 2 * 3


def test_choices_agree_with_counts(folder: Path) -> None:
    import numpy as np

    with np.load(folder / "counts.npz") as counts:
        for path in (folder / "routing").iterdir():
            frame = pl.read_parquet(path)
            for which in (False, True):
                own = frame.filter(pl.col("padding") == which)
                expected = counts[f"{path.stem}-{'padding' if which else 'real'}"]
                table = np.zeros_like(expected)
                np.add.at(table, (own["step"], own["layer"], own["expert"]), 1)
                assert (table == expected).all()


def test_real_tokens_choose_alike_in_both_arms(folder: Path) -> None:
    arms = [
        pl.read_parquet(folder / "routing" / f"2x6-unsorted-{arm}.parquet").drop("run")
        for arm in ("baseline", "rerouted")
    ]
    real = [frame.filter(~pl.col("padding")) for frame in arms]
    assert real[0].equals(real[1])
    assert not arms[0].equals(arms[1])


def test_counts_alone(tmp_path: Path) -> None:
    model = config_file(tmp_path / "model", "mixtral")
    prompts = prompts_file(tmp_path / "p.jsonl", LENGTHS)
    found = run(
        "padding", "run", "--model", f"random:{model}", "--prompts", prompts, "--batches", "3x2",
        "--counts-only", "--max-tokens", "5", *QUICK, "-o", tmp_path / "out",
    )  # fmt: skip
    assert found.exit_code == 0, found.output
    frame = pl.read_parquet(tmp_path / "out" / "routing" / "3x2-unsorted-baseline.parquet")
    assert set(frame.columns) == {"run", "step", "layer", "expert", "tokens", "padding"}
    real = sum(min(length, 5) for length in LENGTHS[:6])
    assert frame.filter(~pl.col("padding"))["tokens"].sum() == real * 2 * 3
    report = run("padding", "report", tmp_path / "out")
    assert report.exit_code == 0, report.output
    assert "Share of padding, and the CV" in report.stdout


def test_no_further_setting_after_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = iter(range(0, 10_000, 100))
    monkeypatch.setattr("nsysmoe.model.measure.time.monotonic", lambda: next(ticks))
    model = config_file(tmp_path / "model")
    prompts = prompts_file(tmp_path / "p.jsonl", LENGTHS)
    found = run("padding", "run", "--model", f"random:{model}", "--prompts", prompts, "--batches",
                "3x2,2x2", "--limit", "5", *QUICK, "-o", tmp_path / "out")  # fmt: skip
    assert found.exit_code == 0, found.output
    assert "stopped after 5 s, before 2x2-unsorted" in found.stderr
    assert "[stopped_early]" in run("padding", "report", tmp_path / "out").stdout


@pytest.mark.parametrize("batches", ["2x2,4x2", "4x2,2x2"])
def test_memory_that_runs_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batches: str
) -> None:
    from nsysmoe.model.passes import see as see_all

    def see(loaded: Any, batch: Any, *, reroutes: bool) -> Any:
        if len(batch.prompts) > 2:
            raise torch.cuda.OutOfMemoryError("no memory")
        return see_all(loaded, batch, reroutes=reroutes)

    monkeypatch.setattr("nsysmoe.model.measure.see", see)
    model = config_file(tmp_path / "model")
    prompts = prompts_file(tmp_path / "p.jsonl", LENGTHS)
    found = run("padding", "run", "--model", f"random:{model}", "--prompts", prompts, "--batches",
                batches, *QUICK, "-o", tmp_path / "out")  # fmt: skip
    assert "has too little memory for a batch of 4x2-unsorted" in found.stderr
    is_first = batches.startswith("4x2")
    assert found.exit_code == (1 if is_first else 0)
    assert (tmp_path / "out").exists() is not is_first


def questions_file(path: Path, answers: list[int]) -> Path:
    rows = [
        {
            "question": " ".join(WORDS[number : number + 3 * (number % 5) + 1]),
            "choices": [WORDS[number], WORDS[number + 1], WORDS[number + 2]],
            "answer": answer,
        }
        for number, answer in enumerate(answers)
    ]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def alone(model: Path, questions: Path) -> list[int]:
    """Answer each question by itself, with all of transformers' own forward pass."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    whole = transformers.AutoModelForCausalLM.from_pretrained(model).eval()
    found = []
    for line in questions.read_text().splitlines():
        row = json.loads(line)
        choices = "\n".join(f"{letter}. {text}" for letter, text in zip("ABC", row["choices"]))  # noqa: B905
        ids = tokenizer(f"{row['question']}\n{choices}\nAnswer:", return_tensors="pt")
        with torch.inference_mode():
            logits = whole(**ids).logits[0, -1]
        letters = [tokenizer.convert_tokens_to_ids(letter) for letter in "ABC"]
        found.append(int(logits[letters].argmax()))
    return found


def test_multiple_choice_is_answered_as_one_by_one(tmp_path: Path) -> None:
    model = saved_model(tmp_path / "model")
    questions = questions_file(tmp_path / "q.jsonl", [0, 1, 2, 0, 1, 2, 0, 1])
    expected = alone(model, questions)
    assert len(set(expected)) > 1
    keys = [0, 1, 2, 0, 1, 2, 0, 1]
    found = run("padding", "run", "--model", model, "--eval", questions, "--batches", "4x2",
                "--reroute", "--experts", "batched_mm", *QUICK, "-o", tmp_path / "out")  # fmt: skip
    assert found.exit_code == 0, found.output
    report = json.loads(run("padding", "report", tmp_path / "out", "--format", "json").stdout)
    accuracy = report["runs"][0]["accuracy"]
    right = sum(one == key for one, key in zip(expected, keys, strict=True))
    assert accuracy == {
        "questions": 8, "right": {"baseline": right, "rerouted": right}, "changed": 0,
    }  # fmt: skip


def test_a_model_on_disk_without_padding_token(tmp_path: Path) -> None:
    model = saved_model(tmp_path / "model", special={"pad_token": None}, pad_token_id=None)
    prompts = prompts_file(tmp_path / "p.jsonl", LENGTHS)
    found = run("padding", "run", "--model", model, "--prompts", prompts, "--batches", "2x2",
                "-o", tmp_path / "out")  # fmt: skip
    assert found.exit_code == 1
    assert "names no padding token; give its id with --pad-token" in found.stderr
    assert not (tmp_path / "out").exists()


def test_nothing_is_left_behind_by_an_error(tmp_path: Path) -> None:
    model = config_file(tmp_path / "model")
    prompts = prompts_file(tmp_path / "p.jsonl", [3, 4])
    arguments: tuple[Any, ...] = ("padding", "run", "--model", f"random:{model}", "--prompts",
                                  prompts, *QUICK, "-o", tmp_path / "out")  # fmt: skip
    found = run(*arguments)
    assert found.exit_code == 1
    assert "8x50 takes 400 prompts, and there are 2" in found.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "p.jsonl"]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    assert "holds something already" in run(*arguments, "--batches", "2x1").stderr


def test_experts_that_fail_when_they_run(tmp_path: Path) -> None:
    model = config_file(tmp_path / "model")
    prompts = prompts_file(tmp_path / "p.jsonl", LENGTHS)
    found = run("padding", "run", "--model", f"random:{model}", "--prompts", prompts, "--batches",
                "2x2", "--experts", "deepgemm", *QUICK, "-o", tmp_path / "out")  # fmt: skip
    assert found.exit_code == 1
    assert "experts cannot be computed by deepgemm: " in found.stderr
    assert not (tmp_path / "out").exists()


BARE = """
import sys
for name in ("polars", "pyarrow", "duckdb", "plotly", "rich", "jinja2", "markupsafe"):
    sys.modules[name] = None
from nsysmoe.cli import main
main(sys.argv[1:])
"""


def test_a_node_needs_torch_and_click_alone(tmp_path: Path) -> None:
    model = config_file(tmp_path / "model")
    prompts = prompts_file(tmp_path / "p.jsonl", LENGTHS)
    words = ["padding", "run", "--model", f"random:{model}", "--prompts", str(prompts),
             "--batches", "2x2", "--reroute", *QUICK, "-o", str(tmp_path / "out")]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", BARE, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "choices-2x2-unsorted-baseline.npz", "choices-2x2-unsorted-rerouted.npz", "counts.npz",
        "run.json",
    ]  # fmt: skip
    # On a laptop the report makes the logs.
    found = run("padding", "report", tmp_path / "out")
    assert found.exit_code == 0, found.output
    assert found.stderr.count("Wrote ") == 2
    assert run("padding", "report", tmp_path / "out").stderr == ""
