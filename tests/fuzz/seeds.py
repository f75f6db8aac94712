"""What mutants are made of: small beginnings of real traces, and the files that lie beside them."""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

import nsysmoe
from fixtures.cut import cut
from tests.conftest import DP2, FOUR_GPUS, GRAPHS, REPLICAS, TABLE1

# MoE launches a rank that are kept: two forward passes of eight layers.
_LAUNCHES = 32
# Of exports that the environment names: rows kept of each table.
_ROWS = 2000
_NSYS_STATS = (
    "Time (%),Total Time (ns),Instances,Avg (ns),Med (ns),Min (ns),Max (ns),StdDev (ns),Name\n"
    "60.0,6000,3,2000.0,1900.0,1000,3100,1053.6,fused_moe_kernel\n"
    '30.0,3000,2,1500.0,1500.0,1000,2000,707.1,"ncclDevKernel_AllReduce_Sum_bf16_RING_LL(x, y)"\n'
    "10.0,1000,1,1000.0,1000.0,1000,1000,0.0,void vllm::rms_norm_kernel<float>(float*)\n"
)
_RULES = '[[rule]]\nclass = "moe_gemm"\nfunction = "my_kernel"\nrole = "w13"\n'


def write_corpus(folder: Path) -> None:
    """Write the seeds: ``traces/`` and ``documents/``; those of NSYSMOE_TRACES as well."""
    traces, documents = folder / "traces", folder / "documents"
    for made in (traces, documents):
        made.mkdir(parents=True, exist_ok=True)
    for name, source in _pairs().items():
        cut(source, traces / f"{name}.sqlite", _LAUNCHES)
    shutil.copy(FOUR_GPUS, traces / "four_gpus.sqlite")
    if named := os.environ.get("NSYSMOE_TRACES"):
        _add_real(Path(named), traces)
    _write_documents(documents)
    shutil.copy(REPLICAS / "eplb_on.routed.npz", folder / "replicas.npz")
    shutil.copy(REPLICAS / "eplb_on.run.json", folder / "replicas.json")
    shutil.copy(REPLICAS / "eplb_on.sqlite", folder / "replicas.sqlite")
    (folder / "wide.csv").write_text("1,2,3,4,5,6,7,8\n" * 8)
    stats = documents / "stats.csv"
    nsysmoe.compare(stats, stats).save(documents / "saved.json")


def _pairs() -> dict[str, Path]:
    return {
        "dp2_off": DP2 / "eplb_off.sqlite",
        "dp2_on": DP2 / "eplb_on.sqlite",
        "graphs_off": GRAPHS / "eplb_off.sqlite",
        "graphs_on": GRAPHS / "eplb_on.sqlite",
        "replicas_on": REPLICAS / "eplb_on.sqlite",
    }


def _add_real(folder: Path, traces: Path) -> None:
    """Add the beginnings of every export in a folder, each table cut to its first rows."""
    for source in sorted([*folder.rglob("*.sqlite"), *folder.rglob("*.sqlite.gz")]):
        target = traces / f"{source.parent.name}_{source.name.removesuffix('.gz')}"
        content = source.read_bytes()
        target.write_bytes(gzip.decompress(content) if source.suffix == ".gz" else content)
        with closing(sqlite3.connect(target)) as database:
            names = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            for (name,) in names.fetchall():
                if name != "StringIds" and not name.startswith("sqlite_"):
                    database.execute(f'DELETE FROM "{name}" WHERE rowid > {_ROWS}')
            database.commit()
            database.execute("VACUUM")


def _write_documents(folder: Path) -> None:
    shutil.copy(GRAPHS / "config.json", folder / "config.json")
    shutil.copy(TABLE1 / "eplb_off.csv", folder / "window.csv")
    (folder / "stats.csv").write_text(_NSYS_STATS)
    (folder / "rules.toml").write_text(_RULES)
    for name, document in _json_documents().items():
        (folder / name).write_text(json.dumps(document), encoding="utf-8")
    for name, rows in _lines().items():
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "loads.csv").write_text("10,20,30,40\n40,10,20,30\n5,5,5,5\n")
    _write_arrays(folder)
    _write_tables(folder)


def _json_documents() -> dict[str, Any]:
    run = json.loads((REPLICAS / "eplb_on.run.json").read_text())
    requests = [
        {"prompt_tokens": 8, "output_tokens": 4, "tpot_s": 0.01 * n, "ttft_s": 0.1 * n}
        for n in range(1, 9)
    ]
    rounds = [
        {"round": name, "requests": requests, "summary": {"wall_s": 2.0, "ttft_p50_s": 0.3}}
        for name in ("control", "profiled")
    ]
    bench = {"request_throughput": 2.5, "output_throughput": 80.0, "completed": 8, "failed": 0}
    bench |= {f"{end}_{what}_ms": 5.0 for what in ("ttft", "tpot") for end in ("mean", "p99")}
    plan = {"physical_to_logical_map": [0, 1, 2, 3], "device_loads": [30.0, 70.0]}
    return {
        "run.json": run,
        "rounds.json": {"args": {"ep": "on", "dataset": "a.jsonl"}, "runs": rounds, "capture": {}},
        "bench.json": {**bench, "max_num_seqs": "8", "ep": "on", "run_number": 0},
        "answer.json": {"choices": [{"routed_experts": _routes(n).tolist()} for n in (3, 4)]},
        "packed.json": [{"routed_experts": _packed(_routes(n))} for n in (4, 3)],
        "gate_logs_3.json": {
            "step": [0, 1],
            "num_tokens": [3, 3],
            "expert_loads": [[1, 2], [3, 0]],
        },
        "plan.json": {"layers": [plan, plan, plan]},
        "map.json": {"physical_to_logical_map": [[0, 1, 2, 3]] * 3},
        "manifest.json": {
            "schema_version": 1,
            "sets": [{"file": "a.jsonl", "score": 0.4, "expected_score": 0.4, "sha256": "00"}],
        },
        "prompts.json": [{"conversations": [{"from": "human", "value": "who is there"}]}] * 3,
    }


def _lines() -> dict[str, list[dict[str, Any]]]:
    routes = _routes(12)
    return {
        "routes.jsonl": [
            {"req_id": "ab"[token // 6], "token_idx": token % 6, "layer": layer,
             "topk_ids": list(map(int, chosen)), "topk_weights": [0.6, 0.4]}
            for token, layers in enumerate(routes) for layer, chosen in enumerate(layers)
        ],
        "batches.jsonl": [
            {"layer_id": layer, "iteration": step, "experts": routes[:4, layer].tolist()}
            for step in range(3) for layer in range(2)
        ],
        "counts.jsonl": [
            {"layer": layer, "step": step, "tokens_per_expert": [3, 0, 7, layer]}
            for step in range(3) for layer in range(2)
        ],
        "prompts.jsonl": [{"prompt": f"the quick fox number {n} jumps"} for n in range(8)],
    }  # fmt: skip


def _routes(tokens: int) -> np.ndarray[Any, Any]:
    chosen = random.Random(5)
    pairs = [[chosen.sample(range(4), 2) for _ in range(2)] for _ in range(tokens)]
    return np.array(pairs, dtype=np.uint8)


def _packed(array: np.ndarray[Any, Any]) -> str:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return base64.b64encode(buffer.getvalue()).decode()


def _write_arrays(folder: Path) -> None:
    np.savez_compressed(folder / "routed.npz", r0=_routes(6), r1=_routes(9))
    np.savez(folder / "plain.npz", r0=_routes(6), r1=_routes(9))
    np.save(folder / "routed.npy", _routes(10))


def _write_tables(folder: Path) -> None:
    import polars as pl

    choices = pl.DataFrame(
        [(token // 5, token % 5, layer, k, (token + k + layer) % 4)
         for token in range(9) for layer in range(2) for k in range(2)],
        schema=["request", "token", "layer", "k", "expert"], orient="row",
    )  # fmt: skip
    choices.write_csv(folder / "choices.csv")
    choices.with_columns(pl.col("request").cast(pl.String)).write_parquet(
        folder / "choices.parquet"
    )
    sweep = pl.DataFrame(
        {
            "point": [0, 0, 1, 1, 2, 2],
            "routing": ["all2all", "baseline"] * 3,
            "expected_score": [0.1, 0.1, 0.4, 0.4, 0.8, 0.8],
            "tpot_s": [0.010, 0.011, 0.013, 0.012, 0.017, 0.012],
        }
    )
    sweep.write_csv(folder / "sweep.csv")
    sweep.write_json(folder / "sweep.json")
    sweep.write_parquet(folder / "sweep.parquet")
    pl.DataFrame({"prompt": ["a b c", "a a b", "c c d"]}).write_parquet(folder / "prompts.parquet")
