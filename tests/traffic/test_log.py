"""Logs of requests in the forms that are in use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nsysmoe.capture.node.nsysmoe_workload import arrivals
from nsysmoe.errors import InputError, MissingDataError
from nsysmoe.traffic.log import read_log
from nsysmoe.traffic.request import CHAT, COMPLETIONS
from nsysmoe.traffic.schedule import intended, poisson


def lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_our_own_lines_in_the_order_of_arrival(tmp_path: Path) -> None:
    log = read_log(lines(
        tmp_path / "a.jsonl",
        {"id": "b", "prompt": "two", "max_tokens": 3, "arrival_s": 12.5},
        {"id": "a", "prompt_token_ids": [1, 2], "output_tokens": 4, "arrival_s": 10},
    ))  # fmt: skip
    assert list(log.arrivals or ()) == [0.0, 2.5]
    first, second = log.request(0), log.request(1)
    assert (first.id, first.prompt, first.output_tokens) == ("a", [1, 2], 4)
    assert (second.id, second.path, second.prompt) == ("b", COMPLETIONS, "two")
    body = second.body("m", 1, ignore_eos=True)
    assert body == {
        "prompt": "two", "model": "m", "max_tokens": 3, "stream": True,
        "stream_options": {"include_usage": True}, "ignore_eos": True,
    }  # fmt: skip


def test_openai_batches_and_gateways(tmp_path: Path) -> None:
    chat = {"model": "x", "messages": [{"role": "user", "content": "hi"}], "temperature": 0.2,
            "max_tokens": 99, "stream": False, "n": 4}  # fmt: skip
    log = read_log(lines(
        tmp_path / "a.jsonl",
        {"custom_id": "c", "method": "POST", "url": "/v1/chat/completions", "body": chat,
         "timestamp": "2025-01-01T00:00:00Z"},
        {"request_id": "g", "created": 1735689601, "request": chat,
         "response": {"usage": {"completion_tokens": 17}}},
        {**chat, "timestamp": 1735689602500},
    ))  # fmt: skip
    assert list(log.arrivals or ()) == [0.0, 1.0, 2.5]
    found = [log.request(number) for number in range(3)]
    assert [one.path for one in found] == [CHAT] * 3
    assert [one.output_tokens for one in found] == [99, 17, 99], "what was answered, not allowed"
    body = found[1].body("m", 1, ignore_eos=False)
    assert (body["temperature"], body["stream"], body["model"]) == (0.2, True, "m")
    assert "n" not in body
    assert "ignore_eos" not in body
    assert "timestamp" not in found[2].options


def test_sharegpt_with_its_answers_counted(tmp_path: Path) -> None:
    path = tmp_path / "share.json"
    turns = [{"from": "human", "value": "say it"}, {"from": "gpt", "value": "one two three"}]
    path.write_text(json.dumps([{"id": "s", "conversations": turns}, {"conversations": []}]))
    log = read_log(path, lambda text: len(text.split()))
    assert (len(log), log.arrivals) == (1, None)
    assert (log.request(0).prompt, log.request(0).output_tokens) == ("say it", 3)
    assert [one.code for one in log.findings] == ["bad_rows"]


def test_lengths_alone_share_the_prefixes_that_they_shared(tmp_path: Path) -> None:
    log = read_log(lines(
        tmp_path / "m.jsonl",
        {"timestamp": 0, "input_length": 1500, "output_length": 5, "hash_ids": [4, 5, 6]},
        {"timestamp": 3000, "input_length": 1100, "output_length": 6, "hash_ids": [4, 5, 9]},
    ))  # fmt: skip
    first, second = log.request(0).prompt, log.request(1).prompt
    assert (len(first), len(second)) == (1500, 1100)
    assert first[:1024] == second[:1024]
    assert first[1024:1100] != second[1024:1100]
    assert list(log.arrivals or ()) == [0.0, 3.0]


def test_a_result_of_vllms_benchmark(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    found = {"input_lens": [3, 4], "output_lens": [5, 6], "start_times": [10.0, 9.0]}
    path.write_text(json.dumps(found))
    log = read_log(path)
    assert [log.request(number).output_tokens for number in range(2)] == [6, 5]
    assert len(log.request(0).prompt) == 4
    path.write_text(json.dumps(found, indent=2))
    assert len(read_log(path)) == 2


def test_burstgpts_table(tmp_path: Path) -> None:
    path = tmp_path / "burst.csv"
    path.write_text("Timestamp,Model,Request tokens,Response tokens\n5,x,10,20\n7,x,11,0\n")
    log = read_log(path)
    assert list(log.arrivals or ()) == [0.0, 2.0]
    assert log.request(0).output_tokens == 20
    assert log.request(1).output_tokens is None, "a length of 0 is a failure, not a length"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_table_with_the_line_ends_of_any_system(tmp_path: Path, end: str, mark: str) -> None:
    path = tmp_path / "burst.csv"
    table = ("Timestamp,Request tokens,Response tokens", "1,2,3", '4,"5",6', "")
    path.write_bytes((mark + end.join(table)).encode())
    log = read_log(path)
    assert list(log.arrivals or ()) == [0.0, 3.0]
    assert [log.request(number).output_tokens for number in range(len(log))] == [3, 6]


@pytest.mark.parametrize(("row", "why"), [
    ({"prompt": ""}, "prompt is neither"), ({"prompt": [1, "2"]}, "prompt is neither"),
    ({"messages": [{"content": "x"}]}, "messages without roles"), ([1], "no JSON object"),
    ({"prompt": "x", "max_tokens": 1.5}, "max_tokens is no number"),
    ({"prompt": "x", "timestamp": "soon"}, "timestamp is no time"),
    ({"prompt": "x", "timestamp": True}, "timestamp is no time"),
    ({"input_length": 1 << 22 + 1}, "input_length is no number"),
])  # fmt: skip
def test_rows_that_are_no_request(tmp_path: Path, row: Any, why: str) -> None:
    with pytest.raises(MissingDataError, match=why):
        read_log(lines(tmp_path / "a.jsonl", row))


def test_times_of_some_are_times_of_none(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", {"prompt": "x", "time": 1}, {"prompt": "y"})
    with pytest.raises(MissingDataError, match="tells when 1 of 2 requests came"):
        read_log(path)


def test_too_many_bad_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xff\n" * 200)
    with pytest.raises(InputError, match="more than 100 rows that are no request"):
        read_log(path)


def test_what_is_left_keeps_its_own_timing() -> None:
    arrivals = [0.0, 1.0, 2.0, 5.0]
    assert intended(arrivals, [0, 1, 2, 3], 2.0) == [(0, 0.0), (1, 0.5), (2, 1.0), (3, 2.5)]
    assert intended(arrivals, [1, 3], 1.0) == [(1, 0.0), (3, 4.0)]
    assert intended(arrivals, [], 1.0) == []


def test_poisson_arrivals_have_their_rate_and_repeat() -> None:
    found = poisson(20_000, 50.0, 7)
    assert found[0] == 0.0
    assert found[-1] == pytest.approx(400, rel=0.03)
    assert found == poisson(20_000, 50.0, 7)
    # What a capture's server gets, too: its script on the node has the standard library alone.
    assert list(found) == arrivals(50.0, 20_000, 7)


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_a_line_without_end_is_not_held(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with path.open("wb") as file:
        file.write(b"Timestamp,Request tokens\n")
        file.truncate(80 << 20)
    with pytest.raises(InputError, match="more than 64 MiB in line 2"):
        read_log(path)
