"""The score: by hand, against an independent implementation, and through the command."""

from __future__ import annotations

import json
import math
import os
import threading
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from nsysmoe.analysis.experiments.workload_score import score_texts, workload_score
from nsysmoe.cli import main
from nsysmoe.errors import InputError, MissingDataError
from nsysmoe.workload.features import Features, features_of
from nsysmoe.workload.predictor import WEIGHTS, score_of
from nsysmoe.workload.prompts import read_prompts
from nsysmoe.workload.similarity import mean_cosine
from nsysmoe.workload.tokenizers import tokenizer_of
from tests.workload import oracle

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

WORDS = tokenizer_of("whitespace")
KEYS = [
    "repetition_rate", "vocabulary_diversity", "top10_concentration", "entropy_bits",
    "normalized_entropy", "gini", "bigram_concentration", "semantic_similarity",
]  # fmt: skip


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["workload", *map(str, arguments)])


def write(path: Path, prompts: Sequence[object]) -> Path:
    path.write_text("".join(json.dumps({"prompt": one}) + "\n" for one in prompts))
    return path


def test_golden_by_hand() -> None:
    """Two prompts, "aa aa bb cc" and "aa bb": n = 6, V = 3, counts 3, 2, 1.

    H = 1/2 log2 2 + 1/3 log2 3 + 1/6 log2 6; Gini = (-2·1 + 0·2 + 2·3) / (3·6) = 2/9. Bigrams of
    the whole stream, across the prompts: aa-aa, aa-bb (twice), bb-cc, cc-aa: all in the top 10.
    idf of aa and bb = ln(3/3) + 1 = 1, of cc = ln(3/2) + 1 = k: the cosine of (2, 1, k) and
    (1, 1, 0) is 3 / √(2 (5 + k²)).
    """
    found = score_texts(["aa aa bb cc", "aa bb"], WORDS)
    entropy = 0.5 + math.log2(3) / 3 + math.log2(6) / 6
    k = math.log(1.5) + 1
    cosine = 3 / math.sqrt(2 * (5 + k * k))
    assert (found.prompts, found.tokens, found.shortest, found.longest) == (2, 6, 2, 4)
    assert asdict(found.features) == pytest.approx(
        {
            "repetition_rate": 1 / 2,
            "vocabulary_diversity": 1 / 2,
            "top10_concentration": 1.0,
            "entropy_bits": entropy,
            "normalized_entropy": entropy / math.log2(3),
            "gini": 2 / 9,
            "bigram_concentration": 1.0,
            "semantic_similarity": (cosine + 1) / 2,
        },
        abs=1e-15,
    )
    expected = (
        0.25 * 0.5 + 0.20 + 0.15 * 0.5 + 0.10 * (1 - entropy / math.log2(3)) + 0.10 * 2 / 9 + 0.10
        + 0.10 * (cosine + 1) / 2
    )  # fmt: skip
    assert found.score == pytest.approx(expected, abs=1e-15)


def test_concentration_counts_ten() -> None:
    """12 tokens: one 9 times, 11 once. Top 10: 9 + 9 of 20; bigrams 1-1 eight times, 11 others."""
    found = features_of(np.array([1] * 9 + list(range(2, 13))))
    assert found.top10_concentration == 18 / 20
    assert found.bigram_concentration == (8 + 9) / 19


def test_one_word_over_and_over_is_the_most_concentrated() -> None:
    found = score_texts(["word " * 50] * 3, WORDS)
    assert found.features.entropy_bits == 0
    assert math.copysign(1, found.features.entropy_bits) == 1
    assert found.features.normalized_entropy == 0
    assert found.features.gini == 0
    assert found.features.semantic_similarity == pytest.approx(1)
    assert found.score == pytest.approx(0.9 - 0.4 / 150)


def test_similarity_off_renormalises() -> None:
    texts = ["one two two", "three four four four"]
    with_, without = score_texts(texts, WORDS), score_texts(texts, WORDS, semantic=False)
    assert without.features.semantic_similarity is None
    similar = with_.features.semantic_similarity
    assert similar is not None
    assert with_.score == pytest.approx(0.9 * without.score + 0.1 * similar)


def test_what_is_not_defined_is_null_and_not_weighed() -> None:
    found = score_texts(["word"], WORDS)
    assert found.features.bigram_concentration is None
    assert found.features.semantic_similarity is None
    assert [one.code for one in found.findings] == ["one_prompt"]
    # Only the 10 most frequent tokens and the normalised entropy speak: 0.2 + 0.1 of 0.8.
    assert found.score == pytest.approx(0.3 / 0.8)


def test_weights_are_the_papers() -> None:
    assert list(WEIGHTS.values()) == [0.25, 0.20, 0.15, 0.10, 0.10, 0.10, 0.10]
    most = Features(1, 0, 1, 0, 0, 1, 1, 1)
    assert score_of(most) == 1


WORDS_OF = st.text(alphabet="abcdeéß中_0'", min_size=1, max_size=3)
PROMPT = st.lists(WORDS_OF, min_size=1, max_size=30).map(" ".join)


@settings(max_examples=150)
@given(st.lists(PROMPT, min_size=1, max_size=12), st.booleans())
def test_agrees_with_the_independent_implementation(prompts: list[str], semantic: bool) -> None:
    found = score_texts(prompts, WORDS, semantic=semantic)
    expected = oracle.predict(prompts, semantic=semantic)
    for name, value in {**asdict(found.features), "score": found.score}.items():
        assert value == pytest.approx(expected[name], abs=1e-12), name


@settings(max_examples=60)
@given(st.lists(PROMPT, min_size=2, max_size=12))
def test_order_of_prompts_does_not_change_what_is_not_of_bigrams(prompts: list[str]) -> None:
    found = asdict(score_texts(prompts, WORDS).features)
    turned = asdict(score_texts(prompts[::-1], WORDS).features)
    for name in set(KEYS) - {"bigram_concentration"}:
        assert turned[name] == pytest.approx(found[name], abs=1e-12)


def test_similarity_of_thousands_takes_no_matrix() -> None:
    """20,000 prompts of two kinds, orthogonal: pairs of one kind are a half of n (n/2 - 1)."""
    n = 20_000
    prompts = ["alpha beta", "gamma delta"] * (n // 2)
    assert mean_cosine(prompts) == pytest.approx((n / 2 - 1) / (n - 1), abs=1e-12)


def test_similarity_without_any_word_is_none_of_it() -> None:
    assert mean_cosine(["a", "b c"]) == 0
    assert mean_cosine(["word"]) is None


def test_json_has_exactly_the_promised_keys(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", ["the cat sat", "the dog sat"])
    found = run("score", path, "--tokenizer", "whitespace", "--format", "json")
    assert found.exit_code == 0
    value = json.loads(found.stdout)
    assert list(value) == ["score", "prompts", "tokens", "tokenizer", "features"]
    assert list(value["features"]) == KEYS
    assert (value["prompts"], value["tokens"], value["tokenizer"]) == (2, 6, "whitespace")
    without = run("score", path, "--no-semantic", "--tokenizer", "whitespace", "--format", "json")
    assert json.loads(without.stdout)["features"]["semantic_similarity"] is None


def test_table_opens_with_the_score(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", ["the cat sat", "the dog sat"])
    text = run("score", path, "--tokenizer", "whitespace").stdout
    assert text.startswith("The expected imbalance score of ")
    assert "whitespace tokenizer" in text.partition("\n")[0]


def test_mixtral_is_the_one_of_32000_entries_without_bos() -> None:
    pytest.importorskip("sentencepiece")
    pytest.importorskip("mistral_common")
    tokens = tokenizer_of("mixtral").encode(["Hello world", "", "Hello"])
    # ▁Hello and ▁world, by Mixtral-8x7B's published vocabulary.
    assert tokens.stream.tolist() == [22557, 1526, 22557]
    assert tokens.lengths.tolist() == [2, 0, 1]


def test_words_stand_in_for_mixtral_aloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nsysmoe.workload.tokenizers.find_spec", lambda _: None)
    path = write(tmp_path / "p.jsonl", ["the cat sat", "the dog sat"])
    found = run("score", path, "--format", "json")
    assert json.loads(found.stdout)["tokenizer"] == "whitespace"
    assert "Mixtral's tokenizer is not installed" in found.stderr
    refused = run("score", path, "--tokenizer", "mixtral")
    assert refused.exit_code == 1
    assert "pip install 'nsysmoe[workload]'" in refused.stderr


def test_a_tokenizer_file_neither_cuts_nor_fills(tmp_path: Path) -> None:
    library = pytest.importorskip("tokenizers")
    model = library.models.WordLevel({"[UNK]": 0, "cat": 1, "[BOS]": 2}, unk_token="[UNK]")
    made = library.Tokenizer(model)
    made.pre_tokenizer = library.pre_tokenizers.Whitespace()
    made.post_processor = library.processors.TemplateProcessing("[BOS] $A", None, [("[BOS]", 2)])
    made.enable_truncation(2)
    made.enable_padding(length=8)
    made.save(str(tmp_path / "tokenizer.json"))
    for given_ in (tmp_path, tmp_path / "tokenizer.json"):
        tokens = tokenizer_of(str(given_)).encode(["cat cat cat", "dog"])
        assert tokens.stream.tolist() == [1, 1, 1, 0]


def test_a_tokenizer_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no tokenizer gpt9"):
        tokenizer_of("gpt9")
    pytest.importorskip("tokenizers", reason="needs the extra workload")
    bad = tmp_path / "tokenizer.json"
    bad.write_text("{}")
    with pytest.raises(InputError, match="no file of the library"):
        tokenizer_of(str(bad))


HOSTILE = b"\n".join(
    [
        b'\xef\xbb\xbf{"prompt": "good one"}',
        b"",
        b"not json",
        b'{"prompt": 7}',
        b'["prompt"]',
        b'{"text": "x"}',
        b'{"prompt": "\xff\xfe"}',
        b'{"prompt": "\\ud800"}',
        b'{"prompt": "   "}',
        b"[" * 100_000,
        b'{"prompt": "nul \\u0000 and \\u2028 stay"}\r',
        b'{"prompt": NaN}',
        b'{"prompt": "cut',
    ]
)


def test_hostile_rows_are_counted_and_named(tmp_path: Path) -> None:
    path = tmp_path / "hostile.jsonl"
    path.write_bytes(HOSTILE)
    found = read_prompts(path)
    assert found.texts == ("good one", "nul \x00 and \u2028 stay")
    assert [line for line, _ in found.bad] == [3, 4, 5, 6, 7, 8, 9, 10, 12, 13]
    (finding,) = found.findings()
    assert finding.evidence["rows"] == 10
    assert "line 6 (no field prompt)" in finding.message
    done = run("score", path, "--tokenizer", "whitespace", "--format", "json")
    assert done.exit_code == 0
    assert "line 3 (not JSON)" in done.stderr
    assert done.stderr.count("\n") == 1


def test_too_many_bad_rows_stop(tmp_path: Path) -> None:
    path = tmp_path / "hostile.jsonl"
    path.write_bytes(HOSTILE)
    assert run("score", path, "--tokenizer", "whitespace", "--max-errors", "10").exit_code == 0
    refused = run("score", path, "--tokenizer", "whitespace", "--max-errors", "9")
    assert refused.exit_code == 1
    assert "more than 9 bad rows, the last in line 13" in refused.stderr
    assert refused.stderr.count("\n") == 1


@pytest.mark.parametrize("content", ["", "\n\n", "x\n", "[]", '{"prompt": ""}'])
def test_a_file_without_prompts(tmp_path: Path, content: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(content)
    with pytest.raises(MissingDataError, match="holds no prompt"):
        read_prompts(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    refused = run("score", tmp_path / "none.jsonl", "--tokenizer", "whitespace")
    assert refused.exit_code == 1
    assert "cannot be read" in refused.stderr


def test_a_pipe_is_refused_with_the_reason(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=('{"prompt": "a b"}\n',))
    writer.start()
    with pytest.raises(InputError, match="it is a pipe"):
        read_prompts(pipe)
    writer.join()


def test_conversations_and_parquet(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    talk = [{"from": "system", "value": "be kind"}, {"from": "human", "value": "say hi"}]
    shared = tmp_path / "share.json"
    odd = [{"from": ["human"], "value": "nobody"}]
    rows = [{"id": "1", "conversations": talk}, {"conversations": []}, {"conversations": odd}]
    shared.write_text(json.dumps(rows))
    found = read_prompts(shared)
    nobody = ((2, "no turn of a person"), (3, "no turn of a person"))
    assert (found.texts, found.bad) == (("say hi",), nobody)
    table = tmp_path / "t.parquet"
    pq.write_table(pa.table({"text": ["one", None, "two"]}), table)
    read = read_prompts(table, "text")
    assert (read.texts, read.bad) == (("one", "two"), ((2, "text is no text"),))
    with pytest.raises(InputError, match="it has text"):
        read_prompts(table)
    table.write_bytes(b"PAR1")
    with pytest.raises(InputError, match="no Parquet"):
        read_prompts(table)


def test_from_python(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", ["the cat sat", "the dog sat"])
    found = workload_score(path, "whitespace")
    assert (found.prompts, found.findings) == (2, ())


def test_what_is_larger_than_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "p.jsonl"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(InputError, match="more than 64 MiB in line 1"):
        read_prompts(path)
    listed = tmp_path / "p.json"
    with listed.open("wb") as file:
        file.write(b"[")
        file.truncate(1 << 40)
    with pytest.raises(InputError, match="is larger than 2048 MiB; write a JSON object a line"):
        read_prompts(listed)
    monkeypatch.setattr("nsysmoe.workload.prompts._LARGEST", 1 << 20)
    write(path, ["a" * (1 << 19)] * 3)
    with pytest.raises(InputError, match="more than 1 Mi characters of prompts by line 3"):
        read_prompts(path)
