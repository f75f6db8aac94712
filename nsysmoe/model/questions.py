"""Multiple choice: questions as prompts, and how many of them a model answers right.

The form of MMLU (Hendrycks et al. 2021): the question, its choices by letter, ``Answer:``; the
answer is the letter to which the model gives the most.
"""

from __future__ import annotations

import json
import string
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nsysmoe.bounded_files import read_text
from nsysmoe.errors import InputError, MissingDataError

if TYPE_CHECKING:
    from pathlib import Path

_LETTERS = string.ascii_uppercase


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        prompt: What the model reads.
        choices: How many answers there are.
        answer: Number of the right one, from 0.
    """

    prompt: str
    choices: int
    answer: int


def read_questions(path: Path) -> tuple[Question, ...]:
    """Read JSON lines with ``question``, ``choices`` (texts) and ``answer`` (number or letter).

    Raises:
        InputError: The file cannot be read, or a line is of another form.
        MissingDataError: It holds no question.
    """
    found = []
    # By line feeds alone: a question may hold what Unicode calls a line's end.
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            found.append(_question(line, f"{path}, line {number}"))
    if not found:
        raise MissingDataError(f"{path} holds no question")
    return tuple(found)


def letter_tokens(tokenizer: Any, choices: int) -> list[int]:
    """Return the tokens of `` A``, `` B``, … as they follow ``Answer:``.

    Raises:
        MissingDataError: A tokenizer has none of its own for each letter.
    """
    encoded = [
        tokenizer.encode(f" {letter}", add_special_tokens=False) for letter in _LETTERS[:choices]
    ]
    found = [int(tokens[-1]) for tokens in encoded if tokens]
    if len(set(found)) < choices:
        raise MissingDataError("the model's tokenizer has no token of its own for each letter")
    return found


def _question(line: str, where: str) -> Question:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is not JSON") from error
    if not isinstance(row, dict) or not isinstance(row.get("question"), str):
        raise InputError(f"{where} has no text `question`")
    choices = row.get("choices")
    if not isinstance(choices, list) or not all(isinstance(each, str) for each in choices):
        raise InputError(f"{where} has no list of texts `choices`")
    if not 2 <= len(choices) <= len(_LETTERS):
        raise InputError(f"{where} has {len(choices)} choices; 2 to {len(_LETTERS)} can be scored")
    answer = _answer(row.get("answer"), len(choices))
    if answer is None:
        raise InputError(f"{where}: `answer` is neither a number of a choice, from 0, nor a letter")
    lines = [row["question"], *(f"{_LETTERS[n]}. {text}" for n, text in enumerate(choices))]
    return Question("\n".join([*lines, "Answer:"]), len(choices), answer)


def _answer(value: Any, choices: int) -> int | None:
    if isinstance(value, str) and len(value) == 1:
        value = _LETTERS.find(value.upper())
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < choices:
        return None
    return value
