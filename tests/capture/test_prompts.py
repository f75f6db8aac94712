"""A file of prompts: checked line by line, and read on the node as it was checked."""

from __future__ import annotations

import argparse
import hashlib
import json
from typing import TYPE_CHECKING

import pytest

from nsysmoe.capture.node import nsysmoe_workload
from nsysmoe.capture.prompts import workload
from nsysmoe.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from nsysmoe.capture.spec import Workload


def checked(path: Path) -> Workload:
    return workload(
        path, count=0, input_tokens=0, output_tokens=5, vocabulary=9, seed=0, warm_rounds=0
    )


def test_counts_and_lengths_are_those_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    rows = [{"prompt_token_ids": [1] * 9, "max_tokens": 3}, {"prompt": "x" * 8}]
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    found = checked(path)
    assert (found.count, found.input_tokens, found.output_tokens) == (2, (9 + 2) // 2, 5)
    assert found.prompts_digest == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_node_reads_the_lines_that_were_checked(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    text = "one\u2028two\x85three"
    line = json.dumps({"prompt": text}, ensure_ascii=False)
    path.write_bytes(f"\ufeff{line}\r\n\r\n{line}".encode())
    assert checked(path).count == 2
    options = argparse.Namespace(prompts=path, output_len=7)
    assert nsysmoe_workload.requests_of(options) == [{"prompt": text, "max_tokens": 7}] * 2


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"prompt": "a"}\n' + b"[" * 200_000, "line 2: not JSON"),
        (b'{"prompt": "a"}\n\xff', "line 2: not JSON"),
        (b"\n \n", "holds no prompt"),
        (b"[]", "line 1: needs a `prompt`"),
    ],
)
def test_what_is_no_prompt_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=said):
        checked(path)


def test_a_line_without_end_is_not_held(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(InputError, match=r"p.jsonl has more than 64 MiB in line 1; check"):
        checked(path)
