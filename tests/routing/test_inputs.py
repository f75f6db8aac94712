"""Files beside a trace: read when they are right, refused in one line when they are not."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nsysmoe.errors import InputError
from nsysmoe.routing import log, read_model, read_run, read_vllm_log
from nsysmoe.routing.labels import read_labels
from nsysmoe.routing.run import Worker
from tests.conftest import ENGINES, GRAPHS


def saved(path: Path, **arrays: Any) -> Path:
    np.savez_compressed(path, **arrays)
    return path


def written(path: Path, document: Any) -> Path:
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def refused(what: Any, *arguments: Any, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        what(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_log_is_one_row_a_choice(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    routes = [random.integers(0, 8, (n, 3, 2), dtype=np.uint8) for n in (4, 1, 7)]
    # Eleven requests and more: r10 comes after r9, not after r1.
    routes += [random.integers(0, 8, (2, 3, 2), dtype=np.uint8) for _ in range(9)]
    path = saved(tmp_path / "a.npz", **{f"r{n}": route for n, route in enumerate(routes)})
    found = read_vllm_log(path)
    assert (found.layers, found.top_k) == (3, 2)
    assert found.tokens == tuple(len(route) for route in routes)
    assert found.choices.rows() == [
        (request, token, layer, k, int(route[token, layer, k]))
        for request, route in enumerate(routes)
        for token in range(len(route))
        for layer in range(3)
        for k in range(2)
    ]


def test_logs_of_another_form_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    route = np.zeros((3, 2, 2), dtype=np.uint8)
    path = tmp_path / "a.npz"
    assert "r0, r1" in refused(read_vllm_log, saved(path, r0=route, r2=route))
    assert "r0, r1" in refused(read_vllm_log, saved(path, other=route))
    assert "differ" in refused(read_vllm_log, saved(path, r0=route, r1=route[:, :1]))
    assert "differ" in refused(read_vllm_log, saved(path, r0=route[0]))
    assert "integers" in refused(read_vllm_log, saved(path, r0=route.astype(float)))
    assert "below 0" in refused(read_vllm_log, saved(path, r0=route.astype(int) - 1))
    assert "above" in refused(read_vllm_log, saved(path, r0=route.astype(int) + 70_000))
    assert "without tokens" in refused(read_vllm_log, saved(path, r0=route, r1=route[:0]))
    hostile = np.array([[[print]]], dtype=object)
    assert "cannot be read" in refused(read_vllm_log, saved(path, r0=hostile))
    path.write_bytes(b"PK no archive")
    assert "not a .npz" in refused(read_vllm_log, path)
    assert "No such file" in refused(read_vllm_log, tmp_path / "none.npz")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("r0.npy", b"no array")
    assert "cannot be read" in refused(read_vllm_log, path)
    monkeypatch.setattr(log, "_LARGEST_BYTES", 10)
    assert "unpacks to more" in refused(read_vllm_log, saved(path, r0=route))


def test_a_record_of_a_real_run() -> None:
    run = read_run(GRAPHS / "eplb_on.run.json")
    assert run.prompt_tokens == (256,) * 32
    assert run.output_tokens == (48,) * 32
    assert (run.max_running, run.max_step_tokens) == (32, 4096)
    assert run.map_before is not None
    assert run.map_after is not None
    assert run.map_before[0] == (0, 5, 2, 7, 4, 3, 6, 1)
    assert run.map_after[0] == (0, 4, 2, 7, 5, 3, 6, 1)
    assert read_run(GRAPHS / "eplb_off.run.json").map_before is None
    # Of before captures wrote processes down, and which engine served a request.
    assert (run.request_ranks, run.workers) == (None, {})


def test_a_record_of_several_engines(tmp_path: Path) -> None:
    path = ENGINES / "eplb_off.run.json"
    run = read_run(path)
    assert (run.data_parallel, run.request_ranks) == (2, (0,) * 16 + (1,) * 16)
    sound = json.loads(path.read_text(encoding="utf-8"))
    told = [
        {"pid": 7, "data_parallel_rank": 1, "expert_parallel_rank": 3},
        {"pid": 8, "data_parallel_rank": 0, "expert_parallel_rank": None},
    ]
    run = read_run(written(tmp_path / "run.json", {**sound, "workers": told}))
    assert run.workers == {7: Worker(1, 3), 8: Worker(0, None)}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"args": None}, "args"),
        ({"runs": []}, "runs"),
        ({"runs": [{"requests": [{"prompt_tokens": 4}]}]}, "output_tokens"),
        ({"runs": [{"requests": [{"prompt_tokens": True, "output_tokens": 1}]}]}, "prompt_tokens"),
        (
            {"runs": [{"requests": [{"prompt_tokens": 4, "output_tokens": 1, "rank": -1}]}]},
            "`rank` must be a number of 0 and more",
        ),
        ({"workers": {}}, "`workers` must be a list of objects"),
        ({"workers": [3]}, "`workers` must be a list of objects"),
        ({"workers": [{"data_parallel_rank": 0}]}, "`pid` must be a number above 0"),
        ({"workers": [{"pid": 7}]}, "`data_parallel_rank`"),
        (
            {"workers": [{"pid": 7, "data_parallel_rank": 0, "expert_parallel_rank": "0"}]},
            "`expert_parallel_rank`",
        ),
        ({"eplb_before": [{"models": {}}]}, "one model"),
        ({"eplb_after": [{"models": {"m": {}}}]}, "physical_to_logical_map"),
        (
            {"eplb_after": [{"models": {"m": {"physical_to_logical_map": [[0, 1], [0]]}}}]},
            "physical_to_logical_map",
        ),
        (
            {"eplb_after": [{"models": {"m": {"physical_to_logical_map": [[0, -1]]}}}]},
            "physical_to_logical_map",
        ),
        (
            {"eplb_after": [{"models": {"m": {"physical_to_logical_map": [[0, 10**30]]}}}]},
            "physical_to_logical_map",
        ),
        ({"args": {"max_num_seqs": "many"}}, "max_num_seqs"),
        ({"args": {"ep": ["on"]}}, '`ep` must be "on" or "off"'),
        ({"args": {"ep": 7}}, '`ep` must be "on" or "off"'),
    ],
)
def test_records_that_lack_something_say_what(
    tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    sound = json.loads((GRAPHS / "eplb_on.run.json").read_text(encoding="utf-8"))
    assert says in refused(read_run, written(tmp_path / "run.json", {**sound, **change}))


def test_files_that_are_no_json_objects_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    assert "No such file" in refused(read_run, path)
    path.write_bytes(b"\xff{")
    assert "not UTF-8" in refused(read_run, path)
    path.write_text("[" * 100_000, encoding="utf-8")
    assert "not JSON" in refused(read_run, path)
    assert "JSON object" in refused(read_run, written(path, [1]))


def test_sizes_of_a_model(tmp_path: Path) -> None:
    mixtral = read_model(GRAPHS / "config.json")
    assert mixtral is not None
    assert mixtral.weights() == {"w13": 2 * 14336 * 4096, "w2": 4096 * 14336}
    assert mixtral.widths() == {"w13": 28672, "w2": 4096}
    assert (mixtral.experts, mixtral.weight_bytes) == (8, 2.0)
    qwen = {
        "hidden_size": 2048, "intermediate_size": 5632, "moe_intermediate_size": 768,
        "num_experts": 128, "dtype": "float16",
    }  # fmt: skip
    found = read_model(written(tmp_path / "a.json", {"text_config": qwen}))
    assert found is not None
    assert (found.hidden, found.intermediate, found.experts) == (2048, 768, 128)
    given = read_model(None, hidden=64, intermediate=32, weight_bytes=1)
    assert given is not None
    assert given.weights() == {"w13": 4096, "w2": 2048}
    assert read_model(None) is None
    assert "intermediate size" in refused(read_model, None, hidden=64)
    quantized = written(tmp_path / "b.json", {**qwen, "quantization_config": {"bits": 4}})
    assert "--weight-bytes" in refused(read_model, quantized)
    assert read_model(quantized, weight_bytes=0.5) is not None
    assert "--weight-bytes" in refused(read_model, None, hidden=64, intermediate=32)


def test_texts_beside_a_log_may_hold_what_unicode_calls_a_lines_end(tmp_path: Path) -> None:
    domain = "one\u2028domain\x85"
    lines, table = tmp_path / "d.jsonl", tmp_path / "d.csv"
    line = json.dumps({"prompt": "a\u2028b", "domain": domain}, ensure_ascii=False)
    lines.write_text(f"{line}\n{line}\n", encoding="utf-8")
    table.write_text(f"request,domain\nr,{domain}\n", encoding="utf-8")
    found = [read_labels(domains=path).domains for path in (lines, table)]
    assert [one and one.of("r", 1) for one in found] == [domain, domain]
