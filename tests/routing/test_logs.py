"""Routing logs of every form: read when they are right, refused in one line when they are not."""

from __future__ import annotations

import base64
import io
import json
import pickle
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner, Result

from nsysmoe.cli import main
from nsysmoe.errors import InputError
from nsysmoe.metrics.routed_load.routing_loads import count_choices, layer_cubes, run_loads
from nsysmoe.routing import forms
from nsysmoe.routing.convert import convert, open_log
from tests.conftest import GRAPHS

ROUTE = np.random.default_rng(1).integers(0, 8, (5, 3, 2), dtype=np.uint8)


def rows_of(path: Path, **options: Any) -> pl.DataFrame:
    return pl.concat(open_log(path, **options).batches)


def lines(path: Path, *objects: Any) -> Path:
    path.write_text("".join(json.dumps(each) + "\n" for each in objects), encoding="utf-8")
    return path


def refused(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        rows_of(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["routing", *map(str, arguments)])


def encoded(array: Any) -> str:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return base64.b64encode(buffer.getvalue()).decode()


def route_line(token: int, experts: list[int], request: str = "r0", **more: Any) -> dict[str, Any]:
    return {"req_id": request, "token_idx": token, "layer": 0, "topk_ids": experts, **more}


def check_route(found: pl.DataFrame, route: Any = ROUTE) -> None:
    keys = found.select("token", "layer", "k", "expert").rows()
    assert keys == [
        (token, layer, k, int(route[token, layer, k]))
        for token in range(route.shape[0])
        for layer in range(route.shape[1])
        for k in range(route.shape[2])
    ]


def test_arrays_of_every_wrapping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forms, "BATCH_ROWS", 13)
    np.savez(tmp_path / "a.npz", r0=ROUTE)
    np.save(tmp_path / "a.npy", ROUTE)
    listed = {"outputs": [{"routed_experts": ROUTE.tolist()}]}
    (tmp_path / "a.json").write_text(json.dumps(listed), encoding="utf-8")
    answer = {"choices": [{"routed_experts": encoded(ROUTE)}]}
    (tmp_path / "b.json").write_text(json.dumps(answer), encoding="utf-8")
    for name in ("a.npz", "a.npy", "a.json", "b.json"):
        found = rows_of(tmp_path / name)
        check_route(found)
        assert found.schema == pl.Schema(forms.TOKENS_SCHEMA)
        assert found["run"].unique().to_list() == [name[0]]


def test_requests_come_in_order(tmp_path: Path) -> None:
    routes: dict[str, Any] = {f"r{n}": np.full((1, 1, 2), n) for n in range(12)}
    np.savez(tmp_path / "a.npz", **routes)
    found = rows_of(tmp_path / "a.npz")
    assert found["request"].unique(maintain_order=True).to_list() == list(routes)


def test_gate_logs_are_layers_of_one_run(tmp_path: Path) -> None:
    folder = tmp_path / "gates_logs_a"
    folder.mkdir()
    for layer in (0, 7):
        document = {"step": [3, 4], "num_tokens": [2, 1], "expert_loads": [[1, 3], [2, layer]]}
        (folder / f"gate_logs_{layer}.json").write_text(json.dumps(document), encoding="utf-8")
    output = tmp_path / "o.parquet"
    done = convert([folder], output)
    assert (done.level, done.files, done.rows) == ("counts", 2, 8)
    found = pl.read_parquet(output)
    assert found["run"].unique().to_list() == ["gates_logs_a"]
    assert found.filter(layer=7, step=4).sort("expert")["tokens"].to_list() == [2, 7]
    assert found.schema == pl.Schema(forms.COUNTS_SCHEMA)


def test_router_traces_hold_a_batch_a_line(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "a.jsonl",
        {"type": "meta"},
        {"iteration": 5, "layer_number": 2, "topk_indices": [[0, 3], [1, 2]],
         "probs": [[0.5, 0.25], [0.75, 0.125]]},
    )  # fmt: skip
    assert rows_of(path).select("step", "layer", "token", "k", "expert", "weight").rows() == [
        (5, 2, 0, 0, 0, 0.5), (5, 2, 0, 1, 3, 0.25), (5, 2, 1, 0, 1, 0.75), (5, 2, 1, 1, 2, 0.125),
    ]  # fmt: skip
    counted = lines(tmp_path / "b.jsonl", {"iteration": 1, "layer": 0, "tokens_per_expert": [4, 0]})
    assert rows_of(counted).select("step", "expert", "tokens").rows() == [(1, 0, 4), (1, 1, 0)]


def megatron(rank: int, step: int, layer: int, routes: list[list[int]], **more: Any) -> Any:
    """A line as Megatron-LM's router tracer writes it (core/transformer/moe/router_trace.py)."""
    block = {"block": "mtp" if more else "decoder", "layer": layer, "rank": rank}
    size = {"num_tokens": len(routes), "topk": 2, "top_indices": routes}
    return {"step": step, "stage": "pre_dispatch", **block, **size, **more}


def test_megatron_traces_of_ranks_are_one_run(tmp_path: Path) -> None:
    folder = tmp_path / "traces"
    folder.mkdir()
    lines(
        folder / "router_trace_rank0.jsonl",
        megatron(0, 0, 3, [[5, 1], [5, 1]]),
        megatron(0, 0, 0, [[2, 4], [0, 1]], mtp_idx=0),
        # Two equal routes again: the step tells that they are not the same tokens once more.
        megatron(0, 1, 3, [[5, 1]]),
        megatron(0, 1, 0, [[7, 6]], mtp_idx=1),
        megatron(0, 2, 3, []),
    )
    lines(folder / "router_trace_rank1.jsonl", megatron(1, 0, 3, [[0, 7]]))
    done = convert([folder], tmp_path / "o.parquet")
    assert (done.level, done.files, done.rows, done.dummy_rows) == ("tokens", 2, 14, 0)
    found = pl.read_parquet(tmp_path / "o.parquet")
    assert found["run"].unique().to_list() == ["traces"]
    columns = ("request", "step", "layer", "token", "k", "expert")
    assert sorted(found.select(columns).rows()) == [
        ("rank0", 0, 3, 0, 0, 5), ("rank0", 0, 3, 0, 1, 1),
        ("rank0", 0, 3, 1, 0, 5), ("rank0", 0, 3, 1, 1, 1),
        ("rank0", 0, 1000, 0, 0, 2), ("rank0", 0, 1000, 0, 1, 4),
        ("rank0", 0, 1000, 1, 0, 0), ("rank0", 0, 1000, 1, 1, 1),
        ("rank0", 1, 3, 0, 0, 5), ("rank0", 1, 3, 0, 1, 1),
        ("rank0", 1, 2000, 0, 0, 7), ("rank0", 1, 2000, 0, 1, 6),
        ("rank1", 0, 3, 0, 0, 0), ("rank1", 0, 3, 0, 1, 7),
    ]  # fmt: skip


def statistics(folder: Path, name: str, tensors: dict[str, Any]) -> None:
    """Write what TensorRT-LLM's ExpertStatistic saves."""
    numpy = pytest.importorskip("safetensors.numpy", reason="nsysmoe[tensorrt] is not installed")
    folder.mkdir(exist_ok=True)
    meta = {"num_experts": 4, "num_experts_per_token": 2}
    (folder / "meta_info.json").write_text(json.dumps(meta), encoding="utf-8")
    numpy.save_file(
        {key: np.array(value, dtype=np.int32) for key, value in tensors.items()},
        folder / f"{name}.safetensors",
    )


def test_statistics_of_tensorrt_ranks_are_added_up(tmp_path: Path) -> None:
    folder = tmp_path / "expert_statistic"
    statistics(folder, "rank0", {"10_3": [1, 0, 2, 1], "9_3": [0, 0, 0, 4]})
    statistics(folder, "rank1", {"10_3": [3, 1, 0, 0]})
    for given in (folder, folder / "meta_info.json"):
        done = convert([given], tmp_path / "o.parquet")
        assert (done.level, done.files, done.rows) == ("counts", 2, 12)
        found = pl.read_parquet(tmp_path / "o.parquet")
        assert found["run"].unique().to_list() == ["expert_statistic"]
        summed = count_choices([found.select("run", "step", "layer", "expert", "tokens")])
        assert summed.filter(step=10)["tokens"].to_list() == [4, 1, 2, 1]
        assert summed.filter(step=9).select("layer", "tokens").rows()[-1] == (3, 4)


def test_choices_of_tensorrt_are_read_where_they_were_kept(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    statistics(folder, "rank0", {"1_0": [1, 1, 1, 1]})
    statistics(folder, "cooccurrence_rank0", {"1_0": [[1] * 4] * 4})
    statistics(folder, "token_selected_experts_rank0", {"1_0": [[3, 1], [0, 2]]})
    done = convert([folder], tmp_path / "o.parquet")
    assert (done.level, done.files, done.rows) == ("tokens", 1, 4)
    columns = ("run", "request", "step", "layer", "token", "k", "expert")
    assert pl.read_parquet(tmp_path / "o.parquet").select(columns).rows()[1:3] == [
        ("s", "rank0", 1, 0, 0, 1, 1), ("s", "rank0", 1, 0, 1, 0, 0),
    ]  # fmt: skip


def test_what_is_no_statistic_of_tensorrt_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    statistics(folder, "rank0", {"model.layers.0.weight": [1]})
    assert "not iteration_layer" in refused(folder / "rank0.safetensors")
    statistics(folder, "rank0", {"1_0": [[1]]})
    assert "2 axes" in refused(folder / "rank0.safetensors")
    (folder / "rank0.safetensors").write_bytes(b"\xff" * 40)
    assert "cannot be read as safetensors" in refused(folder / "rank0.safetensors")
    (folder / "rank0.safetensors").unlink()
    assert "no rank*.safetensors" in run("load", folder, "-o", tmp_path / "o.parquet").output


def test_dummy_runs_are_dropped_and_counted(tmp_path: Path) -> None:
    dummy = [route_line(token, [3, 5]) for token in range(40)]
    real = [route_line(token, [token % 7, 7]) for token in range(6)]
    path = lines(tmp_path / "a.jsonl", {"type": "meta"}, *dummy, *real)
    source = open_log(path)
    found = pl.concat(source.batches)
    assert found.height == 12
    assert found["expert"].to_list() == [e for token in range(6) for e in (token % 7, 7)]
    assert (source.tally.dummy_tokens, source.tally.dummy_rows) == (40, 80)
    kept = open_log(path, keep_dummy=True)
    assert pl.concat(kept.batches).height == 92
    assert kept.tally.dummy_tokens == 40


@pytest.mark.parametrize(
    ("routes", "dropped"),
    [
        # Keys that come again after a batch of equal routes.
        ([(0, [4, 2]), (1, [4, 2]), (0, [1, 2]), (1, [3, 4])], 2),
        # The first experts, in any order.
        ([(0, [1, 0]), (1, [1, 0]), (2, [5, 2])], 2),
        # A real prompt may repeat itself for a while, and a batch may be one token.
        ([(0, [4, 2]), (1, [4, 2]), (2, [4, 2]), (3, [1, 2])], 0),
        ([(0, [4, 2]), (0, [4, 3])], 0),
        # Equal routes amid a prompt.
        ([(0, [1, 2]), *((token, [4, 2]) for token in range(1, 60))], 0),
    ],
)
def test_what_a_dummy_run_is(
    tmp_path: Path, routes: list[tuple[int, list[int]]], dropped: int
) -> None:
    path = lines(tmp_path / "a.jsonl", *(route_line(*each) for each in routes))
    source = open_log(path)
    rows = sum(batch.height for batch in source.batches)
    assert source.tally.dummy_tokens == dropped
    assert rows == 2 * (len(routes) - dropped)


def test_equal_weights_on_the_first_experts_are_dummy(tmp_path: Path) -> None:
    route = route_line(0, [1, 0], topk_weights=[0.5, 0.5])
    source = open_log(lines(tmp_path / "a.jsonl", route, route_line(1, [2, 3])))
    assert sum(batch.height for batch in source.batches) == 2
    assert source.tally.dummy_tokens == 1


def test_tables_come_back_as_they_were_written(tmp_path: Path) -> None:
    output = tmp_path / "o.parquet"
    done = convert([GRAPHS / "eplb_off.routed.npz"], output)
    found = pl.read_parquet(output)
    assert found.height == done.rows
    assert rows_of(output).equals(found)
    found.write_csv(tmp_path / "o.csv")
    assert rows_of(tmp_path / "o.csv").equals(found)
    small = tmp_path / "c.csv"
    small.write_text("layer,expert,tokens,other\n0,1,5,x\n", encoding="utf-8")
    assert rows_of(small).rows() == [("c", None, 0, 1, 5)]


class Hostile:
    """Writes a file where a pickle of it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return Path.touch, (self.path,)  # type: ignore[return-value]


def test_no_pickle_runs(tmp_path: Path) -> None:
    trap = tmp_path / "sprung"
    payload = pickle.dumps(Hostile(trap))
    (tmp_path / "a.pt").write_bytes(payload)
    (tmp_path / "a.npy").write_bytes(payload)
    np.save(tmp_path / "b.npy", np.array([Hostile(trap)], dtype=object), allow_pickle=True)
    array = io.BytesIO()
    np.save(array, np.array([Hostile(trap)], dtype=object), allow_pickle=True)
    text = json.dumps({"routed_experts": base64.b64encode(array.getvalue()).decode()})
    (tmp_path / "a.json").write_text(text, encoding="utf-8")
    for name in ("a.pt", "a.npy", "b.npy", "a.json"):
        assert refused(tmp_path / name)
    assert not trap.exists()


def fake_torch(monkeypatch: pytest.MonkeyPatch, document: Any) -> None:
    """Stand in for torch, which the tests do not need to install."""
    torch: Any = types.ModuleType("torch")

    def load(path: Path, *, map_location: str, weights_only: bool) -> Any:
        assert (map_location, weights_only) == ("cpu", True)
        if isinstance(document, Exception):
            raise document
        assert path.exists()
        return document

    torch.load = load
    monkeypatch.setitem(sys.modules, "torch", torch)


@pytest.fixture
def torch() -> Any:
    return pytest.importorskip("torch", reason="PyTorch is not installed")


def test_files_that_torch_wrote(tmp_path: Path, torch: Any) -> None:
    ring = torch.zeros((6, 2, 4), dtype=torch.int32)
    ring[2] = torch.arange(8).reshape(2, 4)
    path = tmp_path / "expert_distribution_recorder_1.pt"
    # What modes `stat` and `stat_approx` dump, and the types in which counts may come.
    for kind in (torch.int32, torch.int64, torch.float32, torch.bfloat16):
        torch.save(
            {"rank": 0, "logical_count": ring.to(kind),
             "average_utilization_rate_over_window": torch.tensor(0.4)},
            path,
        )  # fmt: skip
        assert rows_of(path).select("step", "layer", "expert", "tokens").rows() == [
            (2, layer, expert, 4 * layer + expert) for layer in range(2) for expert in range(4)
        ]


def test_passes_and_tokens_that_torch_wrote(tmp_path: Path, torch: Any) -> None:
    path = tmp_path / "expert_distribution_recorder_1_0.pt"
    map_ = torch.tensor([[0, 1, 2, 0]])
    # Two tokens with two choices each; eight places, -1 where a token chose fewer.
    chosen = torch.full((1, 2, 8), -1, dtype=torch.int32)
    chosen[0, :, :2] = torch.tensor([[3, 1], [2, 0]])
    count = torch.bincount(chosen[chosen >= 0].long(), minlength=4).reshape(1, 4)
    known = {"rank": 0, "gatherer_key": "primary", "global_physical_count": count}
    record = {"forward_pass_id": 7, **known}
    torch.save({"records": [record], "last_physical_to_logical_map": map_}, path)
    assert rows_of(path).select("step", "expert", "tokens").rows() == [
        (7, 0, 2), (7, 1, 1), (7, 2, 1),
    ]  # fmt: skip
    detail = {
        "input_ids": [5, 6], "positions": [0, 1], "extend_seq_lens": [2], "forward_mode": 1,
        "misc_objects": [], "topk_ids_of_layer": chosen,
    }  # fmt: skip
    torch.save({"records": [{**record, **detail}], "last_physical_to_logical_map": map_}, path)
    found = rows_of(path)
    assert found.select("step", "phase", "layer", "token", "k", "expert").rows() == [
        (7, "prefill", 0, 0, 0, 0), (7, "prefill", 0, 0, 1, 1),
        (7, "prefill", 0, 1, 0, 2), (7, "prefill", 0, 1, 1, 0),
    ]  # fmt: skip
    chosen[0, 0, 0] = 4
    torch.save({"records": [{**record, **detail}], "last_physical_to_logical_map": map_}, path)
    assert "differ in layers or experts" in refused(path)
    torch.save(
        {"records": [{**record, "forward_pass_id": "x"}], "last_physical_to_logical_map": map_},
        path,
    )
    assert "is no number" in refused(path)


def test_torch_runs_nothing(tmp_path: Path, torch: Any) -> None:
    trap, path = tmp_path / "sprung", tmp_path / "a.pt"
    torch.save({"logical_count": Hostile(trap)}, path)
    assert "could run code" in refused(path)
    path.write_bytes(pickle.dumps({"logical_count": Hostile(trap)}))
    assert "could run code" in refused(path)
    assert not trap.exists()
    torch.save({"logical_count": torch.ones((1, 2, 3))}, path)
    path.write_bytes(path.read_bytes()[:300])
    assert "cannot be read" in refused(path)


def test_damaged_arrays_are_refused_wherever_they_are_damaged(tmp_path: Path) -> None:
    for name, save in (("a.npz", np.savez_compressed), ("b.npz", np.savez), ("a.npy", np.save)):
        path = tmp_path / name
        whole: Any = {"r0": ROUTE} if path.suffix == ".npz" else {"arr": ROUTE}
        save(path, **whole)
        content = path.read_bytes()
        for place in range(0, len(content), 5):
            for damaged in (
                content[:place],
                content[:place] + b"\xff\x01" + content[place + 2 :],
                content[:place] + b"[" + content[place:],
            ):
                path.write_bytes(damaged)
                try:
                    found = rows_of(path)
                except InputError as error:
                    assert name in str(error)
                else:
                    assert found["expert"].max() <= 65_535  # type: ignore[operator]


def test_sglangs_recorder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "expert_distribution_recorder_1.pt"
    path.touch()
    ring = np.zeros((4, 2, 3), dtype=int)
    ring[1] = [[1, 2, 3], [4, 5, 6]]
    fake_torch(monkeypatch, {"rank": 0, "logical_count": ring})
    assert rows_of(path).select("step", "layer", "expert", "tokens").rows() == [
        (1, layer, expert, 1 + 3 * layer + expert) for layer in range(2) for expert in range(3)
    ]
    record = {"forward_pass_id": 9, "global_physical_count": np.array([[1, 2, 4]])}
    fake_torch(
        monkeypatch, {"records": [record], "last_physical_to_logical_map": np.array([[0, 1, 0]])}
    )
    assert rows_of(path).select("step", "expert", "tokens").rows() == [(9, 0, 5), (9, 1, 2)]
    for document, says in (
        ({}, "neither"),
        (7, "none of"),
        ({"logical_count": ring[0]}, "axes"),
        ({"logical_count": ring * 0}, "counted nothing"),
        ({"records": []}, "last_physical"),
        ({"records": [{}], "last_physical_to_logical_map": np.array([[0]])}, "global_physical"),
        (pickle.UnpicklingError("Weights only load failed\nmore"), "could run code"),
        (RuntimeError("failed finding central directory. This is\nmore"), "central directory"),
        ({"logical_count": ring / 2}, "no whole numbers"),
        ({"logical_count": np.full((1, 1, 1), "x")}, "axes"),
    ):
        fake_torch(monkeypatch, document)
        assert says in refused(path)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.jsonl", '{"topk_ids": [1, 2]}\n{"topk_ids": [1,', "cut off"),
        ("a.jsonl", '{"topk_ids": [1, 2]}\n{"topk_ids": [1]}\n', "line 2: a route of 1 experts"),
        ("a.jsonl", '{"topk_ids": [1, 70000]}\n', "70000"),
        ("a.jsonl", '{"topk_ids": [-1, 2]}\n', "-1"),
        ("a.jsonl", '{"topk_ids": [1, 99999999999999999999]}\n', "a.jsonl"),
        ("a.jsonl", '{"topk_ids": ["x"]}\n', "whole numbers"),
        ("a.jsonl", '{"topk_ids": 4}\n', "list"),
        ("a.jsonl", '{"topk_ids": [[1], 2]}\n', "whole numbers"),
        ("a.jsonl", '{"layer": "a", "topk_ids": [1]}\n', "layer"),
        ("a.jsonl", '{"token": "a", "topk_ids": [1]}\n', "token"),
        ("a.jsonl", "[1]\n", "not a JSON object"),
        ("a.jsonl", "{}\n", "no line with routes"),
        ("a.jsonl", '{"expert_loads": [1.5]}\n', "whole numbers"),
        ("a.json", '{"routed_experts": [[[1, 2], [1]]]}', "no array"),
        ("a.json", '{"routed_experts": [[1, 2]]}', "shape"),
        ("a.json", '{"routed_experts": [[[1.5]]]}', "integers"),
        ("a.json", '{"routed_experts": "no base64!"}', "no array"),
        ("a.json", '{"routed_experts": [[[70000]]]}', "70000"),
        ("a.json", '[{"routed_experts": [[[1]]]}, {"routed_experts": [[[1, 2]]]}]', "before"),
        ("a.json", '{"routed_experts": [[[1', "not JSON"),
        ("a.json", "{}", "no `routed_experts`"),
        ("gate_logs_1.json", '{"expert_loads": [[1, 2], [3]]}', "no table"),
        ("gate_logs_1.json", '{"expert_loads": [["a"]]}', "rows of one length"),
        ("gate_logs_1.json", '{"expert_loads": [[1.5]]}', "whole numbers"),
        ("gate_logs_1.json", '{"expert_loads": [[1e19]]}', "whole numbers of 64 bits"),
        ("gate_logs_1.json", '{"expert_loads": [[1]], "step": [1, 2]}', "differ in length"),
        ("gate_logs_1.json", '{"expert_loads": [[-1]]}', "-1"),
        ("a.csv", "a,b\n1,2\n", "needs the columns"),
        ("a.csv", "", "no table"),
        ("a.csv", "layer,expert,tokens\n0,1,x\n", "a.csv"),
        ("a.csv", "layer,expert,tokens\n0,,1\n", "no `expert`"),
        ("a.csv", "layer,token,k,expert\n0,0,0,1\n0,0,1,2\n0,1,0,3\n", "k 1 1 times"),
        ("a.parquet", "PAR1", "no table"),
        ("a.npz", "PK", "numpy arrays"),
        ("a.npy", "no", "numpy array"),
        ("a.txt", "x", "no routing log by its name"),
    ],
)
def test_bad_logs_give_one_line_and_leave_nothing(
    tmp_path: Path, name: str, text: str, says: str
) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    assert says in refused(path)
    output = tmp_path / "out" / "o.parquet"
    output.parent.mkdir()
    found = run("load", path, "-o", output)
    assert found.exit_code == 1
    assert len(found.output.strip().splitlines()) == 1
    assert list(output.parent.iterdir()) == []


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".json", ".jsonl", ".csv", ".parquet"])
def test_a_missing_file_is_named(tmp_path: Path, suffix: str) -> None:
    assert f"none{suffix}" in refused(tmp_path / f"none{suffix}")


def test_load_says_what_it_wrote(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", *(route_line(token, [3, 5]) for token in range(40)),
                 route_line(0, [1, 2]))  # fmt: skip
    output = tmp_path / "o.parquet"
    found = json.loads(run("load", path, "-o", output, "--format", "json").stdout)
    assert (found["level"], found["rows"], found["dummy_rows"]) == ("tokens", 2, 80)
    assert [row["code"] for row in found["findings"]] == ["dummy_rows"]
    assert "is an input" in run("load", output, "-o", output).output
    mixed = tmp_path / "c.csv"
    mixed.write_text("layer,expert,tokens\n0,1,5\n", encoding="utf-8")
    assert "load them apart" in run("load", path, mixed, "-o", output).output
    assert pl.read_parquet(output).height == 2


def test_counting_in_parts_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(2)
    frame = pl.DataFrame(
        {
            "run": ["a"] * 500,
            "step": random.integers(0, 5, 500),
            "layer": random.integers(0, 3, 500),
            "expert": random.integers(0, 6, 500),
        }
    )
    whole = count_choices([frame])
    monkeypatch.setattr("nsysmoe.metrics.routed_load.routing_loads._PENDING_ROWS", 20)
    assert count_choices(frame.iter_slices(37)).equals(whole)
    assert whole["tokens"].sum() == 500
    assert run_loads(whole, 6).sum(axis=1).tolist() == [
        frame.filter(layer=layer).height for layer in range(3)
    ]
    for layer, steps, loads in layer_cubes(whole, 6):
        for (_, step), row in zip(steps.rows(), loads, strict=True):
            part = frame.filter(layer=layer, step=step)["expert"].to_numpy()
            assert row.tolist() == np.bincount(part, minlength=6).tolist()
    assert count_choices([]).is_empty()


def test_balance_of_a_real_log(tmp_path: Path) -> None:
    log = GRAPHS / "eplb_off.routed.npz"
    found = json.loads(run("balance", log, "--gpus", "2", "--format", "json").stdout)
    assert (found["layers"], found["experts"], found["top_k"], found["steps"]) == (8, 8, 2, None)
    with np.load(log) as arrays:
        every = np.concatenate([arrays[name] for name in arrays.files])
    loads = np.stack([np.bincount(every[:, n].reshape(-1), minlength=8) for n in range(8)])
    cv = next(row for row in found["measures"] if row["measure"] == "cv")
    assert cv["mean"] == pytest.approx(float((loads.std(axis=1) / loads.mean(axis=1)).mean()))
    assert cv["uniform"] < 0.03
    devices = loads.reshape(8, 2, 4).sum(axis=2)
    vllm = devices.mean(axis=1).sum() / devices.max(axis=1).sum()
    assert found["engines"][1]["vllm_balancedness"] == pytest.approx(vllm)
    assert found["worst"][0]["hottest"] == loads[found["worst"][0]["layer"]].argmax()
    page = tmp_path / "b.html"
    assert run("balance", log, "-o", page).exit_code == 0
    assert "Load of each expert by layer" in page.read_text(encoding="utf-8")


def test_a_uniform_router_is_called_one(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    route = random.random((3000, 4, 16)).argpartition(1, axis=2)[:, :, :2]
    np.save(tmp_path / "a.npy", route)
    assert "what chance gives" in run("balance", tmp_path / "a.npy").output


def test_steps_are_measured_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        "step,layer,expert,tokens\n0,0,0,4\n0,0,1,0\n1,0,0,0\n1,0,1,4\n", encoding="utf-8"
    )
    found = json.loads(run("balance", path, "--format", "json").stdout)
    ratio = {
        row["scope"]: row["mean"] for row in found["measures"] if row["measure"] == "max_over_mean"
    }
    assert ratio == {"run": 1, "step": 2}
    assert [row["code"] for row in found["findings"]] == ["unknown_top_k"]
    assert found["capacity"][0]["dropped"] == 4
    assert "--experts says 1" in run("balance", path, "--experts", "1").output
    path.write_text("layer,expert,tokens\n0,0,0\n", encoding="utf-8")
    assert "no choice" in run("balance", path).output


def test_a_folder_without_logs_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    assert "holds no routing log" in run("balance", tmp_path).output


def test_many_steps_are_thinned_evenly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = "".join(f"{step},0,{step % 2},4\n" for step in range(40))
    path = tmp_path / "a.csv"
    path.write_text("step,layer,expert,tokens\n" + rows, encoding="utf-8")
    monkeypatch.setattr("nsysmoe.analysis.routing.balance._LARGEST", 20)
    found = json.loads(run("balance", path, "--format", "json").stdout)
    assert "thinned_steps" in [row["code"] for row in found["findings"]]
    assert found["choices"] == 160
    assert found["capacity"][0]["choices"] == 40


def test_sizes_that_no_model_has_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.csv"
    path.write_text("layer,expert,tokens\n0,7,1\n1,0,1\n", encoding="utf-8")
    monkeypatch.setattr("nsysmoe.analysis.routing.routing_load._LARGEST", 15)
    assert "no model has" in run("balance", path).output
    np.savez(tmp_path / "a.npz", r0=ROUTE)
    monkeypatch.setattr("nsysmoe.routing.documents._LARGEST_BYTES", 10)
    assert "has an array of more than" in refused(tmp_path / "a.npz")


def test_an_expert_that_a_token_chose_twice_counts_twice(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", route_line(0, [1, 1]), route_line(1, [0, 2]))
    found = json.loads(run("balance", path, "--format", "json").stdout)
    assert found["loads"] == [[1, 2, 1]]
    assert found["worst_experts"][0] == {
        "layer": 0, "expert": 1, "tokens": 2, "over_mean": 1.5, "share": 0.5,
    }  # fmt: skip


def stepped(path: Path) -> Path:
    """Write two steps of two layers and four experts, in two phases."""
    rows = [
        (step, layer, token, expert, phase)
        for step, phase, loads in ((0, "prefill", (6, 1, 1, 0)), (1, "decode", (1, 1, 1, 1)))
        for layer in range(2)
        for token, expert in enumerate(e for e, load in enumerate(loads) for _ in range(load))
    ]
    text = "step,layer,token,expert,phase\n" + "".join(
        ",".join(map(str, row)) + "\n" for row in rows
    )
    path.write_text(text, encoding="utf-8")
    return path


def test_devices_of_single_steps_by_hand(tmp_path: Path) -> None:
    log = stepped(tmp_path / "a.csv")
    found = json.loads(run("balance", log, "--gpus", "2", "--format", "json").stdout)["devices"]
    # Experts 0 and 1, and 2 and 3: 7 and 1 choices, then 2 and 2, in both layers.
    assert (found["per"], found["critical"], found["mean"]) == ("step", 2 * (7 + 2), 2 * (4 + 2))
    assert found["efficiency"] == 12 / 18
    assert found["active"]["max"] == 2
    assert found["active"]["mean"] == 2
    assert found["active"]["held"] == 2
    assert found["loads"] == [[9, 3], [9, 3]]
    dealt = tmp_path / "map.json"
    dealt.write_text(json.dumps([[0, 3, 1, 2]] * 2), encoding="utf-8")
    moved = json.loads(
        run("balance", log, "--gpus", "2", "--map", dealt, "--format", "json").stdout
    )
    # Experts 0 and 3, and 1 and 2: 6 and 2 choices, then 2 and 2.
    assert moved["devices"]["critical"] == 2 * (6 + 2)
    assert moved["devices"]["placement"] == str(dealt)
    vllm = next(row for row in moved["engines"] if row["over"] == "devices")
    assert vllm["vllm_balancedness"] == 6 / 8
    dealt.write_text(json.dumps([[0, 3, 1, 2]]), encoding="utf-8")
    assert "the map has 1 layers" in run("balance", log, "--gpus", "2", "--map", dealt).output
    assert "give --gpus" in run("balance", log, "--map", dealt).output


def test_shared_experts_shrink_the_stakes(tmp_path: Path) -> None:
    log = stepped(tmp_path / "a.csv")
    plain, shared = (
        json.loads(run("balance", log, "--gpus", "2", *more, "--format", "json").stdout)
        for more in ((), ("--shared", "2"))
    )
    # Two more for each token, half of them on each device: 8 + 4 tokens in two layers.
    assert shared["devices"]["critical"] == plain["devices"]["critical"] + 2 * (8 + 4)
    assert shared["devices"]["wasted_share"] < plain["devices"]["wasted_share"]
    # The router is as hot as it was.
    assert shared["measures"] == plain["measures"]


def test_active_experts_of_a_uniform_router(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = "".join(
        f"{step},0,{token},{expert}\n"
        for step in range(300)
        for token in range(8)
        for expert in random.permutation(64)[:2]
    )
    path = tmp_path / "a.csv"
    path.write_text("step,layer,token,expert\n" + rows, encoding="utf-8")
    found = json.loads(
        run("balance", path, "--gpus", "4", "--top-k", "2", "--format", "json").stdout
    )
    active = found["devices"]["active"]
    assert active["mean"] == pytest.approx(active["uniform"], rel=0.03)
    assert active["p50"] <= active["p95"] <= active["max"] <= active["held"] == 16
    assert found["devices"]["wasted_share"] == pytest.approx(
        found["devices"]["uniform_wasted_share"], rel=0.05
    )
    step = next(row for row in found["observed"] if row["scope"] == "step")
    assert step["tokens"] == 8


@pytest.mark.parametrize("by", ["layer", "step", "phase"])
def test_groups_are_measured_each(tmp_path: Path, by: str) -> None:
    log = stepped(tmp_path / "a.csv")
    found = json.loads(run("balance", log, "--by", by, "--format", "json").stdout)
    rows = {row["group"]: row for row in found["groups"]}
    expected = {
        "layer": {0: (12, 7 / 3), 1: (12, 7 / 3)},
        "step": {0: (16, 3), 1: (8, 1)},
        "phase": {"prefill": (16, 3), "decode": (8, 1)},
    }[by]
    assert {
        key: (row["choices"], pytest.approx(row["max_over_mean"])) for key, row in rows.items()
    } == expected
    whole = json.loads(run("balance", log, "--format", "json").stdout)
    assert whole["groups"] == []
    assert found["measures"] == whole["measures"]
    text = run("balance", log, "--by", by, "--format", "csv").stdout
    assert text.splitlines()[0].startswith("group,choices,cv,")


def test_groups_that_a_log_does_not_tell_are_named(tmp_path: Path) -> None:
    log = GRAPHS / "eplb_off.routed.npz"
    assert "tells no phases; give --run" in run("balance", log, "--by", "phase").output
    assert "tells no domains; give --domains" in run("balance", log, "--by", "domain").output
    assert "tells no steps" in run("balance", log, "--by", "step").output
    counts = tmp_path / "c.csv"
    counts.write_text("layer,expert,tokens\n0,1,5\n", encoding="utf-8")
    assert "holds counts" in run("balance", counts, "--by", "phase").output
    record = ("--run", GRAPHS / "eplb_off.run.json")
    found = json.loads(run("balance", log, "--by", "phase", *record, "--format", "json").stdout)
    assert [row["group"] for row in found["groups"]] == ["decode", "prefill"]
    assert sum(row["choices"] for row in found["groups"]) == found["choices"]


def test_balance_draws_its_pictures(tmp_path: Path) -> None:
    page = tmp_path / "b.html"
    log = stepped(tmp_path / "a.csv")
    assert run("balance", log, "--gpus", "2", "--by", "step", "-o", page).exit_code == 0
    text = page.read_text(encoding="utf-8")
    for caption in ("Load of each expert by layer", "Load of each device by layer, contiguous",
                    "imbalance by batch size", "observed in single steps"):  # fmt: skip
        assert caption in text


def test_arrays_with_a_damaged_header_or_a_damaged_stream(tmp_path: Path) -> None:
    route = np.arange(4000, dtype=np.uint8).reshape(500, 4, 2) % 8
    single, several = tmp_path / "a.npy", tmp_path / "a.npz"
    np.save(single, route)
    np.savez_compressed(several, r0=route)
    for path, kept in ((single, 10), (several, 60)):
        content = path.read_bytes()
        for place in range(kept, min(len(content), kept + 60)):
            changed = bytearray(content)
            changed[place] ^= 0x28
            path.write_bytes(changed)
            try:
                rows = sum(batch.height for batch in open_log(path).batches)
            except InputError as error:
                assert "\n" not in str(error)
            else:
                assert rows == route.size


def test_a_request_that_is_half_of_a_surrogate_pair(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"req_id": "\\ud800", "layer": 0, "topk_ids": [0, 1], "token_idx": 0}\n')
    with pytest.raises(InputError, match="surrogates"):
        list(open_log(path).batches)


def test_a_table_whose_header_is_no_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"lay\xe9r,token,expert\n0,0,1\n")
    with pytest.raises(InputError, match="is no table"):
        open_log(path)
