"""Rows of request logs in the forms that are in use, each turned into a ``Request``.

Our own lines; bodies of OpenAI's API, bare, in a batch file (``custom_id``, ``body``) or as a
gateway logs them (``request``, ``response``); conversations in ShareGPT's form; vLLM bench's custom
data set (``prompt``, ``output_tokens``) and rows that tell lengths alone (``input_length``,
``output_length``, ``hash_ids``: Mooncake's traces, which vLLM bench reads too).
"""

from __future__ import annotations

import math
import random
from datetime import datetime, timezone
from typing import Any

from nsysmoe.traffic.request import CHAT, COMPLETIONS, Request

_TIMES = ("arrival_s", "arrival_time", "timestamp", "created_at", "created", "time")
_LENGTHS = ("output_tokens", "max_tokens", "max_completion_tokens", "output_length", "output_len")
_PROMPTS = ("prompt", "prompt_token_ids", "messages")
_HUMAN = {"human", "user"}
# Largest seconds, milliseconds and microseconds since 1970 that are dates to come.
_UNITS = ((1e11, 1.0), (1e14, 1e3), (1e17, 1e6), (math.inf, 1e9))
# Ids of prompts that are made up: above markers, and in every vocabulary.
_FIRST_TOKEN, _LAST_TOKEN = 10, 30_000
# Tokens that one hash id of a Mooncake trace stands for.
_BLOCK = 512
_LONGEST = 1 << 22


class BadRowError(ValueError):
    """A row that is no request; the text says why."""


def request_of(row: Any, number: int) -> Request:
    """Return the request of a row.

    Args:
        row: A JSON value.
        number: Its place in the log, from 0.

    Raises:
        BadRowError: It is none.
    """
    if not isinstance(row, dict):
        raise BadRowError("no JSON object")
    logged = _logged(row)
    body = logged or row
    name = next((row[key] for key in ("id", "custom_id", "request_id") if key in row), number)
    path, prompt = _prompt(body, number)
    lengths = _answered(row) or _length(body) or _length(row)
    return Request(
        id=str(name),
        path=path,
        prompt=prompt,
        output_tokens=lengths,
        arrival_s=_arrival(row),
        options=_options(logged if logged is not None else row, is_body=logged is not None),
    )


def _logged(row: dict[str, Any]) -> dict[str, Any] | None:
    """Return the body of a request that a batch file or a gateway wrapped."""
    for key in ("body", "request"):
        found = row.get(key)
        if isinstance(found, dict):
            inner = found.get("body")
            return inner if isinstance(inner, dict) else found
    return None


def _prompt(
    body: dict[str, Any], number: int
) -> tuple[str, str | list[int] | list[dict[str, Any]]]:
    if isinstance(body.get("messages"), list):
        return CHAT, _messages(body["messages"])
    for key in ("prompt_token_ids", "prompt"):
        if key in body:
            return COMPLETIONS, _text_or_ids(body[key], key)
    if isinstance(body.get("conversations"), list):
        return COMPLETIONS, _first_turn(body["conversations"])
    if (length := _whole(body, "input_length", "prompt_len", "input_len")) is not None:
        return COMPLETIONS, _made_up(length, body.get("hash_ids"), number)
    raise BadRowError(f"none of {', '.join(_PROMPTS)}, conversations, input_length")


def _messages(found: list[Any]) -> list[dict[str, Any]]:
    if not found or not all(isinstance(one, dict) and "role" in one for one in found):
        raise BadRowError("messages without roles")
    return found


def _text_or_ids(found: Any, key: str) -> str | list[int]:
    if isinstance(found, str) and found:
        return found
    if isinstance(found, list) and found:
        if all(isinstance(one, int) and not isinstance(one, bool) and one >= 0 for one in found):
            return found
        if len(found) == 1:
            return _text_or_ids(found[0], key)
    raise BadRowError(f"{key} is neither a text nor a list of token ids")


def _first_turn(turns: list[Any]) -> str:
    for turn in turns:
        if isinstance(turn, dict) and turn.get("from", turn.get("role")) in _HUMAN:
            text = turn.get("value", turn.get("content"))
            if isinstance(text, str) and text:
                return text
            break
    raise BadRowError("no turn of a person")


def answer_of(row: Any) -> str | None:
    """Return the first answer of a conversation in ShareGPT's form; None elsewhere."""
    turns = row.get("conversations") if isinstance(row, dict) else None
    if not isinstance(turns, list):
        return None
    texts = [
        turn.get("value", turn.get("content"))
        for turn in turns
        if isinstance(turn, dict) and turn.get("from", turn.get("role")) not in _HUMAN
    ]
    return next((text for text in texts if isinstance(text, str)), None)


def _made_up(length: int, blocks: Any, number: int) -> list[int]:
    """Return ids for a prompt of which only the length is known; equal blocks get equal ids.

    A block is 512 tokens, as in Mooncake's traces: prefixes that requests shared stay shared.
    """
    if not 0 < length <= _LONGEST:
        raise BadRowError(f"a prompt of {length} tokens")
    names = blocks if isinstance(blocks, list) and blocks else [f"request {number}"]
    found: list[int] = []
    for index in range(-(-length // _BLOCK)):
        name = names[index] if index < len(names) else f"{names[-1]}/{index}"
        draw = random.Random(str(name))  # noqa: S311 - a workload, not a secret
        found += draw.choices(range(_FIRST_TOKEN, _LAST_TOKEN), k=_BLOCK)
    return found[:length]


def _answered(row: dict[str, Any]) -> int | None:
    """Return the tokens that a logged response had."""
    found: Any = row.get("response")
    if isinstance(found, dict) and isinstance(found.get("body"), dict):
        found = found["body"]
    usage = found.get("usage") if isinstance(found, dict) else None
    return _whole(usage, "completion_tokens") if isinstance(usage, dict) else None


def _length(body: dict[str, Any]) -> int | None:
    return _whole(body, *_LENGTHS)


def _whole(row: dict[str, Any], *keys: str) -> int | None:
    """Return the first of some keys that is there; a length below 1 is no length."""
    for key in keys:
        value = row.get(key)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value > _LONGEST:
            raise BadRowError(f"{key} is no number of tokens")
        return value if value > 0 else None
    return None


def _arrival(row: dict[str, Any]) -> float | None:
    for key in _TIMES:
        value = row.get(key)
        if value is None:
            continue
        return _seconds(value, key, is_mooncake="hash_ids" in row)
    return None


def _seconds(value: Any, key: str, *, is_mooncake: bool) -> float:
    if isinstance(value, str):
        return _date(value, key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BadRowError(f"{key} is no time")
    if is_mooncake:
        return value / 1e3
    if key == "arrival_s":
        return float(value)
    return float(value) / next(scale for limit, scale in _UNITS if abs(value) < limit)


def _date(text: str, key: str) -> float:
    try:
        return float(text)
    except ValueError:
        pass
    try:
        # Python 3.10 knows no Z.
        found = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
    except ValueError as error:
        raise BadRowError(f"{key} is no time") from error
    return (found if found.tzinfo else found.replace(tzinfo=timezone.utc)).timestamp()


def _options(row: dict[str, Any], *, is_body: bool) -> dict[str, Any]:
    """Return what else a logged body says; of our own rows only what `options` holds."""
    if not is_body and "messages" not in row:
        found = row.get("options")
        return dict(found) if isinstance(found, dict) else {}
    known = {*_TIMES, *_PROMPTS, "id", "custom_id", "request_id", "output_tokens", "response"}
    return {key: value for key, value in row.items() if key not in known}
