"""Suites: the same bytes everywhere, equal lengths, and families in the order of their dial."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from statistics import median, pstdev
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from nsysmoe.analysis.experiments import workload_suite
from nsysmoe.analysis.experiments.workload_score import score_texts
from nsysmoe.analysis.experiments.workload_suite import Plan, generate
from nsysmoe.cli import main
from nsysmoe.errors import InputError, MissingDataError, OutputError
from nsysmoe.workload.generate.draws import Draws
from nsysmoe.workload.generate.material import templates, written
from nsysmoe.workload.generate.recipe import FAMILIES, family_recipe
from nsysmoe.workload.generate.texts import Measure, domain_weights, prompts_of
from nsysmoe.workload.tokenizers import tokenizer_of

WORDS = tokenizer_of("whitespace")
SMALL = Plan(dials=(0.0, 1.0), mixtures=2, count=12, tokens=40, seed=3)


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["workload", "generate", *map(str, arguments)])


def bytes_of(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def lines_of(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def made(family: str, dial: float, count: int = 60, tokens: int = 96, seed: int = 1) -> list[str]:
    recipe = family_recipe(family, dial)
    return prompts_of(recipe, written(), count, tokens, seed, Measure(WORDS))


def test_draws_are_those_of_sha256() -> None:
    """The first draw by hand: 8 bytes of SHA-256 over the names and the count."""
    first = hashlib.sha256(b"(7, 'a')#0").digest()[:8]
    assert Draws(7, "a").bits() == int.from_bytes(first, "big")
    draws = Draws(1)
    assert Counter(draws.below(4) for _ in range(4000)).most_common()[-1][1] > 900
    assert sorted(Draws(2).shuffled(range(20))) == list(range(20))
    assert Draws(2).weighted([0, 0, 3, 0]) == 2
    assert not Draws(3).happens(0)
    assert all(draws.happens(1) for _ in range(50))


def test_same_seed_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("a", "b", "c")]
    for folder, seed in zip(folders, (3, 3, 4), strict=True):
        generate(folder, Plan(**{**vars(SMALL), "seed": seed}), "whitespace")
    first, second, third = map(bytes_of, folders)
    assert first == second
    assert not set(first.values()) & set(third.values())


def test_bytes_do_not_depend_on_the_version_of_python(tmp_path: Path) -> None:
    """Written down once: a change here changes every suite that users made before."""
    generate(tmp_path, SMALL, "whitespace")
    whole = hashlib.sha256()
    for path in sorted(tmp_path.glob("*.jsonl")):
        whole.update(path.read_bytes())
    assert whole.hexdigest()[:16] == "0ff192180ee8b21d"


@pytest.mark.parametrize("family", FAMILIES)
def test_lengths_are_comparable(family: str) -> None:
    for dial in (0.0, 0.5, 1.0):
        lengths = [len(text.split()) for text in made(family, dial)]
        assert (min(lengths), max(lengths)) == (96, 96)


def test_lengths_spread_around_their_median() -> None:
    texts = prompts_of(family_recipe("semantic", 0), written(), 400, 60, 1, Measure(WORDS), 0.7)
    logs = [math.log(len(text.split()) / 60) for text in texts]
    assert abs(median(logs)) < 0.1
    # Of so many draws the deviation is known to 3.5 percent.
    assert 0.6 < pstdev(logs) < 0.8
    equal = prompts_of(family_recipe("semantic", 0), written(), 5, 60, 1, Measure(WORDS))
    # Texts are the same ones, cut elsewhere.
    assert all(one.startswith(two) or two.startswith(one) for one, two in zip(texts, equal))  # noqa: B905


@pytest.mark.parametrize(("family", "least"), [("repetition", 0.2), ("structure", 0.05)])
def test_scores_rise_with_the_dial(family: str, least: float) -> None:
    for seed in (1, 2, 3):
        scores = [
            score_texts(made(family, dial, seed=seed), WORDS).score for dial in (0, 0.5, 0.75, 1)
        ]
        assert scores == sorted(scores)
        assert scores[-1] - scores[0] > least


def test_domains_concentrate_with_the_dial() -> None:
    for seed in (1, 2, 3):
        found = [score_texts(made("semantic", dial, seed=seed), WORDS) for dial in (0, 0.5, 1)]
        similar = [one.features.semantic_similarity for one in found]
        assert similar == sorted(similar, key=lambda value: value or 0)
        assert found[-1].score > found[0].score


def test_extremes_are_what_they_are_called() -> None:
    repeated = {" ".join(text.split()[2:]) for text in made("repetition", 1.0)}
    assert len(repeated) == 1
    assert len(set(made("repetition", 0.0))) == 60
    frame = templates().frame[4]
    assert all(frame in text for text in made("structure", 1.0))
    assert not any(frame in text for text in made("structure", 0.0))
    fields = {field.name: set(field.words["things"]) for field in written().fields}
    text = " ".join(made("semantic", 1.0))
    used = [name for name, things in fields.items() if sum(one in text for one in things) > 10]
    assert len(used) == 1


def test_weights_of_domains_by_hand() -> None:
    assert domain_weights(0, 3) == [1, 1, 1]
    assert domain_weights(0.75, 3) == [1, 0.25, 0.0625]
    assert domain_weights(1, 3) == [1, 0, 0]


def test_shipped_domains_are_enough_and_distinct() -> None:
    fields = written().fields
    assert len(fields) >= 8
    for field in fields:
        for key, words in field.words.items():
            assert len(set(words)) == len(words) >= 10, (field.name, key)
        assert len(field.words["things"]) >= 30


@settings(max_examples=40)
@given(st.sampled_from(FAMILIES), st.floats(0, 1), st.integers(1, 12), st.integers(1, 60))
def test_any_dial_gives_prompts_that_fit(family: str, dial: float, count: int, tokens: int) -> None:
    texts = made(family, dial, count, tokens)
    assert len(texts) == count
    assert all(0 < len(text.split()) <= tokens for text in texts)


def test_manifest_agrees_with_the_files(tmp_path: Path) -> None:
    suite = generate(tmp_path / "s", SMALL, "whitespace")
    manifest: dict[str, Any] = json.loads((tmp_path / "s" / "manifest.json").read_text())
    assert manifest == suite.manifest
    assert len(manifest["sets"]) == 3 * 2 + 2
    for one in manifest["sets"]:
        data = (tmp_path / "s" / one["file"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == one["sha256"]
        prompts = [json.loads(line)["prompt"] for line in data.splitlines()]
        lengths = [len(text.split()) for text in prompts]
        assert one["tokens"]["total"] == sum(lengths)
        assert one["tokens"]["max"] == max(lengths)
        assert one["score"] == score_texts(prompts, WORDS).score


def test_command_prints_the_manifest(tmp_path: Path) -> None:
    arguments = (
        "--tokenizer", "whitespace", "-n", "5", "--tokens", "20", "--mixtures", "1",
        "--family", "semantic", "--dial", "0.3", "--seed", "9",
    )  # fmt: skip
    found = run(tmp_path / "s", *arguments, "--format", "json")
    assert found.exit_code == 0
    assert json.loads(found.stdout) == json.loads((tmp_path / "s" / "manifest.json").read_text())
    assert [one["file"] for one in json.loads(found.stdout)["sets"]] == [
        "semantic-0300.jsonl",
        "random-001.jsonl",
    ]
    assert run(tmp_path / "s", *arguments).stdout.startswith("2 sets of prompts in ")


def test_real_prompts(tmp_path: Path) -> None:
    source = tmp_path / "real.jsonl"
    rows = [f"Tell me about number {n}. Is it prime?" for n in range(30)]
    source.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    found = run(
        tmp_path / "s", "--from", source, "--field", "text", "--tokenizer", "whitespace",
        "-n", "10", "--tokens", "30", "--dial", "0", "--dial", "1", "--format", "json",
    )  # fmt: skip
    assert found.exit_code == 0
    manifest = json.loads(found.stdout)
    assert {one["family"] for one in manifest["sets"]} == {"repetition", "structure", "random"}
    assert "Is it prime?" in (tmp_path / "s" / "repetition-0000.jsonl").read_text()
    with pytest.raises(MissingDataError, match="--family repetition"):
        generate(tmp_path / "t", SMALL, "whitespace", real=source, field="text")


def test_bad_rows_of_real_prompts_are_counted(tmp_path: Path) -> None:
    source = tmp_path / "real.jsonl"
    rows = [json.dumps({"prompt": f"Is {n} a prime? Tell me."}) for n in range(9)]
    source.write_text("\n".join([*rows, "no JSON", "{}"]))
    arguments = ("--from", source, "--tokenizer", "whitespace", "-n", "4", "--tokens", "9")
    found = run(tmp_path / "s", *arguments)
    assert found.exit_code == 0
    assert "line 10 (not JSON), line 11 (no field prompt)" in found.stdout
    found = run(tmp_path / "t", *arguments, "--max-errors", "1")
    assert found.exit_code == 1
    assert "more than 1 bad rows, the last in line 11" in found.stderr
    assert not (tmp_path / "t").exists()


def test_token_ids_are_those_of_the_text(tmp_path: Path) -> None:
    plan = Plan(("repetition",), (0.5,), 0, 5, 20, token_ids=True)
    generate(tmp_path / "s", plan, "mixtral")
    rows = [json.loads(line) for line in lines_of(tmp_path / "s" / "repetition-0500.jsonl")]
    mixtral = tokenizer_of("mixtral")
    for row in rows:
        assert row["prompt_token_ids"] == mixtral.encode([row["prompt"]]).stream.tolist()
    # Texts do not depend on it.
    generate(tmp_path / "t", replace(plan, token_ids=False), "mixtral")
    plain = [json.loads(line) for line in lines_of(tmp_path / "t" / "repetition-0500.jsonl")]
    assert plain == [{"prompt": row["prompt"]} for row in rows]
    with pytest.raises(InputError, match="words have no token ids"):
        generate(tmp_path / "u", plan, "whitespace")


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match=r"holds something else \(thesis.txt\)"):
        generate(tmp_path, SMALL, "whitespace")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    # Many programs write one; a suite's lists its sets.
    (tmp_path / "manifest.json").write_text('{"runs": [{"file": "thesis.txt"}]}')
    with pytest.raises(OutputError, match="holds something else"):
        generate(tmp_path, SMALL, "whitespace")
    file = tmp_path / "thesis.txt"
    assert run(file, "--tokenizer", "whitespace").exit_code == 1


def test_a_suite_takes_the_place_of_an_earlier_one(tmp_path: Path) -> None:
    generate(tmp_path / "s", Plan(("structure",), (0.0, 1.0), 1, 3, 9), "whitespace")
    manifest = tmp_path / "s" / "manifest.json"
    other = tmp_path / "s" / "notes.txt"
    other.write_text("mine")
    hostile = json.loads(manifest.read_text())
    hostile["sets"] += [{"file": "notes.txt"}, {"file": "../kept.jsonl"}, 3]
    manifest.write_text(json.dumps(hostile))
    (tmp_path / "kept.jsonl").write_text("mine")
    (tmp_path / "s" / ".nsysmoe-of-a-kill").mkdir()
    generate(tmp_path / "s", Plan(("structure",), (1.0,), 0, 3, 9), "whitespace")
    assert {path.name for path in (tmp_path / "s").iterdir()} == {
        "manifest.json", "structure-1000.jsonl", "notes.txt", ".nsysmoe-of-a-kill",
    }  # fmt: skip
    assert (tmp_path / "kept.jsonl").exists()


@pytest.mark.parametrize("is_new", [True, False])
def test_a_suite_that_fails_half_way_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_new: bool
) -> None:
    folder = tmp_path / "s"
    if not is_new:
        generate(folder, SMALL, "whitespace")
    before = {path.name: path.read_bytes() for path in folder.iterdir()} if not is_new else {}
    calls = []

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return score_texts(*args, **kwargs)

    monkeypatch.setattr(workload_suite, "score_texts", interrupted)
    with pytest.raises(KeyboardInterrupt):
        generate(folder, replace(SMALL, seed=9), "whitespace")
    assert folder.exists() is not is_new
    after = {path.name: path.read_bytes() for path in folder.iterdir()} if not is_new else {}
    assert after == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("domain = 3", "has no"),
        ("x = [", "not TOML"),
        ("[domain.a]\nthings = []", r"\[domain.a\] needs `things`"),
        ("[domain.a]\nthings = [3]", "needs `things`"),
    ],
)
def test_domains_of_another_form(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "d.toml"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        written(path)


def test_braces_in_words_are_only_braces(tmp_path: Path) -> None:
    path = tmp_path / "d.toml"
    lists = "\n".join(
        f'{key} = ["{{x}}%s"]' for key in ("things", "actions", "qualities", "places")
    )
    path.write_text(f"[domain.a]\n{lists}")
    assert "{x}%s" in next(written(path).free(0, Draws(1)))


def test_usage(tmp_path: Path) -> None:
    nothing = run(tmp_path / "s", "--family", "none", "--mixtures", "0")
    assert nothing.exit_code == 2
    both = run(tmp_path / "s", "--domains", "a", "--from", "b")
    assert both.exit_code == 2
    twice = run(tmp_path / "s", "--dial", "1", "--dial", "1", "--tokenizer", "whitespace")
    assert "two sets are alike" in twice.stderr
