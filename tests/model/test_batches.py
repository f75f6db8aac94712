"""Batches and questions: arrays and files, without any model."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from nsysmoe.errors import InputError, MissingDataError
from nsysmoe.model.batches import Setting, batches_of, settings_of
from nsysmoe.model.questions import letter_tokens, read_questions

if TYPE_CHECKING:
    from pathlib import Path

PROMPTS = [np.arange(1, length + 1) for length in (3, 1, 2, 5)]


def test_rows_are_filled_up_to_the_longest() -> None:
    first, second = batches_of(PROMPTS, Setting(2, 2), 9, is_sorted=False)
    assert first.tokens.tolist() == [[1, 2, 3], [1, 9, 9]]
    assert first.mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert (first.prompts, first.real, first.padding) == ((0, 1), 4, 2)
    assert (second.prompts, second.real, second.padding) == ((2, 3), 7, 3)


def test_sorting_leaves_less_padding() -> None:
    first, second = batches_of(PROMPTS, Setting(2, 2), 9, is_sorted=True)
    assert (first.prompts, second.prompts) == ((1, 2), (0, 3))
    assert first.padding + second.padding == 3


def test_a_prompt_may_hold_the_padding_token() -> None:
    (batch,) = batches_of([np.array([9, 9]), np.array([9])], Setting(2, 1), 9, is_sorted=False)
    assert batch.mask.tolist() == [[1, 1], [1, 0]]


def test_settings_are_read() -> None:
    assert settings_of("8x50, 64x5") == (Setting(8, 50), Setting(64, 5))
    assert Setting(8, 50).name == "8x50"


@pytest.mark.parametrize("text", ["8", "8x0", "x5", "8x5x2", "", "-1x3", "8x5,"])
def test_settings_of_another_form(text: str) -> None:
    with pytest.raises(InputError, match="is not SIZExCOUNT, such as 8x50"):
        settings_of(text)


def test_a_setting_twice() -> None:
    with pytest.raises(InputError, match="twice"):
        settings_of("8x5,8x5")


def test_too_few_prompts() -> None:
    with pytest.raises(MissingDataError, match="5x1 takes 5 prompts, and there are 4"):
        batches_of(PROMPTS, Setting(5, 1), 9, is_sorted=False)


def written(path: Path, *rows: Any) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


def test_questions_are_prompts_that_end_before_the_answer(tmp_path: Path) -> None:
    row = {"question": "Two and two?", "choices": ["three", "four"], "answer": 1}
    first, second = read_questions(written(tmp_path / "q.jsonl", row, {**row, "answer": "a"}))
    assert first.prompt == "Two and two?\nA. three\nB. four\nAnswer:"
    assert (first.choices, first.answer, second.answer) == (2, 1, 0)


def test_a_question_may_hold_what_unicode_calls_a_lines_end(tmp_path: Path) -> None:
    row = {"question": "One\u2028and\x85two?", "choices": ["a", "b"], "answer": 0}
    path = tmp_path / "q.jsonl"
    path.write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    (found,) = read_questions(path)
    assert found.prompt.startswith("One\u2028and\x85two?\n")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([1], "no text `question`"),
        ({"question": "x"}, "no list of texts `choices`"),
        ({"question": "x", "choices": ["a", 2]}, "no list of texts `choices`"),
        ({"question": "x", "choices": ["a"], "answer": 0}, "has 1 choices; 2 to 26"),
        ({"question": "x", "choices": ["a", "b"], "answer": 2}, "`answer` is neither"),
        ({"question": "x", "choices": ["a", "b"], "answer": "C"}, "`answer` is neither"),
        ({"question": "x", "choices": ["a", "b"], "answer": True}, "`answer` is neither"),
        ({"question": "x", "choices": ["a", "b"]}, "`answer` is neither"),
    ],
)
def test_questions_of_another_form(tmp_path: Path, row: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"line 1.*{message}"):
        read_questions(written(tmp_path / "q.jsonl", row))


def test_files_without_questions(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="holds no question"):
        read_questions(written(tmp_path / "q.jsonl"))
    with pytest.raises(InputError, match="cannot be read"):
        read_questions(tmp_path / "none.jsonl")
    (tmp_path / "bad.jsonl").write_bytes(b"{")
    with pytest.raises(InputError, match="line 1 is not JSON"):
        read_questions(tmp_path / "bad.jsonl")


def test_each_letter_needs_a_token_of_its_own() -> None:
    class Words:
        def encode(self, text: str, add_special_tokens: bool) -> list[int]:
            assert not add_special_tokens
            return [7, ord(text.strip())] if text != " C" else []

    assert letter_tokens(Words(), 2) == [65, 66]
    with pytest.raises(MissingDataError, match="no token of its own for each letter"):
        letter_tokens(Words(), 3)
