"""A file of prompts, checked before anything starts."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from nsysmoe.bounded_files import read_lines
from nsysmoe.capture.spec import Workload
from nsysmoe.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

# A tokenizer makes about so many tokens of a text's characters.
_CHARACTERS_A_TOKEN = 4


def workload(  # noqa: PLR0913 - what a workload is, by keyword
    path: Path | None,
    *,
    count: int,
    input_tokens: int,
    output_tokens: int,
    vocabulary: int,
    seed: int,
    warm_rounds: int,
) -> Workload:
    """Return a workload; one of a file takes counts and lengths from it.

    Raises:
        InputError: The file cannot be read or is of another form; the message names the line.
    """
    if path is None:
        return Workload(
            None, None, count, input_tokens, output_tokens, vocabulary, seed, warm_rounds
        )
    digest, held, length, most = hashlib.sha256(), 0, 0, 0
    for number, line in enumerate(read_lines(path), start=1):
        digest.update(line)
        if line.strip():
            row = _row(path, number, line)
            held += 1
            length += _length(row)
            most = max(most, row.get("max_tokens", output_tokens))
    if not held:
        raise InputError(f"{path} holds no prompt; write one JSON object a line")
    return Workload(
        prompts_file=str(path.absolute()),
        prompts_digest=digest.hexdigest(),
        count=held,
        input_tokens=max(1, length // held),
        output_tokens=most,
        vocabulary=vocabulary,
        seed=seed,
        warm_rounds=warm_rounds,
    )


def _row(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}, line {number}: not JSON") from error
    if not isinstance(row, dict) or not (_is_text(row) or _is_ids(row)):
        raise InputError(f"{path}, line {number}: needs a `prompt` or `prompt_token_ids`")
    tokens = row.get("max_tokens", 1)
    if not isinstance(tokens, int) or isinstance(tokens, bool) or tokens < 1:
        raise InputError(f"{path}, line {number}: `max_tokens` must be a number above 0")
    return row


def _is_text(row: dict[str, Any]) -> bool:
    return isinstance(row.get("prompt"), str) and bool(row["prompt"])


def _is_ids(row: dict[str, Any]) -> bool:
    ids = row.get("prompt_token_ids")
    return isinstance(ids, list) and bool(ids) and all(isinstance(one, int) for one in ids)


def _length(row: dict[str, Any]) -> int:
    if _is_ids(row):
        return len(row["prompt_token_ids"])
    return max(1, len(row["prompt"]) // _CHARACTERS_A_TOKEN)
