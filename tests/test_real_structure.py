"""Steps, waiting and rearrangements on the real exports in the folder that NSYSMOE_TRACES names.

Published figures are those of vLLM's pairs on two H100s, found by folder and file name.
"""

from __future__ import annotations

import gzip
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import nsysmoe
from nsysmoe.analysis.one_trace.structure import collectives, imbalance
from nsysmoe.analysis.one_trace.waits import waits

if TYPE_CHECKING:
    import polars as pl

EAGER, GRAPHS, DP2 = (f"vllm-mixtral-2xh100{suffix}" for suffix in ("", "-graphs", "-dp2"))
ALL_REDUCE = "ncclDevKernel_AllReduce_Sum_bf16_RING_LL"
FOLDER = os.environ.get("NSYSMOE_TRACES")
EXPORTS = [
    path
    for suffix in ("sqlite", "sqlite.gz")
    for path in (sorted(Path(FOLDER).rglob(f"*.{suffix}")) if FOLDER else [])
]
pytestmark = pytest.mark.skipif(not FOLDER, reason="NSYSMOE_TRACES names no folder of exports")


def name_of(path: Path) -> str:
    return f"{path.parent.name}/{path.name.partition('.')[0]}"


BY_NAME = {name_of(path): path for path in EXPORTS}


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Path]:
    """Copies, by the export that they are of."""
    folder, copies = tmp_path_factory.mktemp("exports"), {}
    for number, path in enumerate(EXPORTS):
        copies[path] = folder / f"{number}.sqlite"
        if path.suffix == ".gz":
            copies[path].write_bytes(gzip.decompress(path.read_bytes()))
        else:
            shutil.copy(path, copies[path])
    return copies


def named(unpacked: dict[Path, Path], name: str) -> Path:
    if name not in BY_NAME:
        pytest.skip(f"no {name} in NSYSMOE_TRACES")
    return unpacked[BY_NAME[name]]


def frame(path: Path, view: str) -> pl.DataFrame:
    with nsysmoe.open(path) as trace:
        return trace.frame(view)


@pytest.mark.parametrize("export", EXPORTS, ids=name_of)
def test_what_gpus_did_adds_up(unpacked: dict[Path, Path], export: Path) -> None:
    with nsysmoe.open(unpacked[export]) as trace:
        if not trace.has_kernels():
            pytest.skip("no kernels")
        time, steps = trace.frame("device_time"), trace.frame("device_steps")
        devices = trace.frame("devices")
    assert time.height
    assert (time["busy_ns"] + time["idle_ns"] == time["window_ns"]).all()
    exposed = time.select([name for name in time.columns if name.startswith("exposed_")])
    assert (time["compute_ns"] + exposed.sum_horizontal() == time["busy_ns"]).all()
    span = devices["last_end_ns"] - devices["first_start_ns"]
    assert time["window_ns"].sum() == steps["wall_ns"].sum() == span.sum()
    for _, device in steps.sort("start_ns").group_by("global_pid", "device_id"):
        assert (device["start_ns"][1:] == device["end_ns"][:-1]).all()


@pytest.mark.parametrize(
    "export", [path for path in EXPORTS if path.parent.name.startswith("vllm")], ids=name_of
)
def test_steps_layers_and_products_are_the_same_without_ranges(
    unpacked: dict[Path, Path], export: Path, tmp_path: Path
) -> None:
    bare = Path(shutil.copy(unpacked[export], tmp_path / "bare.sqlite"))
    with closing(sqlite3.connect(bare)) as database:
        database.execute("DROP TABLE IF EXISTS NVTX_EVENTS")
        database.commit()
    columns = ["kernel_id", "step", "pass", "layer", "gemm"]
    here, there = (
        frame(path, "moe_launches").sort("kernel_id").select(columns)
        for path in (unpacked[export], bare)
    )
    if here.is_empty():
        pytest.skip("graphs hide all MoE kernels")
    assert here["gemm"].equals(there["gemm"])
    assert here["pass"].equals(there["pass"])
    known = here["step"].is_not_null()
    assert known.any()
    if there["pass"].is_null().all():
        # Graphs hide all but two steps of kernels: too few to learn from, so nothing is guessed.
        assert frame(bare, "graph_launches").height
        assert there["step"].is_null().all()
        assert there["layer"].is_null().all()
        return
    if known.all():
        assert here.select("step", "layer").equals(there.select("step", "layer"))
        return
    # Passes outside any range have numbers of their own there.
    assert here.filter(known)["layer"].equals(there.filter(known)["layer"])
    pairs = here.filter(known).select("kernel_id", "step").join(
        frame(bare, "moe_launches").select("kernel_id", "rank", there="step"), on="kernel_id"
    )  # fmt: skip
    assert pairs.select("rank", "step").n_unique() == pairs.select("rank", "there").n_unique()
    assert (
        pairs.select("rank", "step", "there").n_unique() == pairs.select("rank", "step").n_unique()
    )


# cells, p50, p95, max, critical, mean, excess in ms
BALANCE: dict[str, tuple[float, ...]] = {
    f"{EAGER}/eplb_off": (800, 1.006, 1.100, 1.553, 241.4, 231.6, 9.8),
    f"{EAGER}/eplb_on": (800, 1.010, 1.063, 1.185, 242.5, 237.0, 5.6),
    f"{GRAPHS}/eplb_off": (816, 1.010, 1.205, 1.454, 259.5, 240.4, 19.1),
    f"{GRAPHS}/eplb_on": (816, 1.010, 1.132, 1.463, 247.8, 239.5, 8.3),
    f"{DP2}/eplb_off": (1024, 1.010, 1.963, 1.973, 282.8, 244.5, 38.2),
    f"{DP2}/eplb_on": (1024, 1.007, 1.961, 1.964, 260.3, 247.4, 12.9),
}


@pytest.mark.parametrize("name", BALANCE)
def test_published_balance(unpacked: dict[Path, Path], name: str) -> None:
    (row,) = imbalance(named(unpacked, name)).rows
    cells, p50, p95, largest, critical, mean, excess = BALANCE[name]
    assert row["cells"] == cells
    assert [row["p50"], row["p95"], row["max"]] == pytest.approx([p50, p95, largest], abs=6e-4)
    times = [row[key] / 1e6 for key in ("critical_ns", "mean_ns", "excess_ns")]
    assert times == pytest.approx([critical, mean, excess], abs=0.06)


# function: transfer, wait of GPU 0 and 1 in ms
REDUCE_SCATTER = "ncclDevKernel_ReduceScatter_Sum_bf16_RING_LL"
ALL_GATHER = "ncclDevKernel_AllGather_RING_LL"
WAITING: list[tuple[str, str, float, float, float]] = [
    (f"{EAGER}/eplb_off", ALL_REDUCE, 10.8, 182.7, 577.6),
    (f"{EAGER}/eplb_on", ALL_REDUCE, 11.1, 719.5, 30.2),
    (f"{GRAPHS}/eplb_off", ALL_REDUCE, 11.5, 35.0, 28.4),
    (f"{GRAPHS}/eplb_on", ALL_REDUCE, 11.2, 28.7, 4.7),
    (f"{DP2}/eplb_off", REDUCE_SCATTER, 4.8, 227.8, 92.2),
    (f"{DP2}/eplb_off", ALL_GATHER, 6.4, 431.7, 96.9),
    (f"{DP2}/eplb_on", REDUCE_SCATTER, 3.8, 112.7, 111.0),
    (f"{DP2}/eplb_on", ALL_GATHER, 5.3, 263.2, 238.4),
]


@pytest.mark.parametrize(
    ("name", "function", "transfer", "first", "second"),
    WAITING,
    ids=[f"{name}-{function.split('_')[1]}" for name, function, *_ in WAITING],
)
def test_published_transfers_and_waits(
    unpacked: dict[Path, Path],
    name: str,
    function: str,
    transfer: float,
    first: float,
    second: float,
) -> None:
    found: list[dict[str, Any]] = [
        row for row in collectives(named(unpacked, name)).rows if row["collective"] == function
    ]
    assert {row["unmatched"] for row in found} == {0}
    waits = {row["device"]: row["wait_ns"] / 1e6 for row in found}
    assert [waits[0], waits[1]] == pytest.approx([first, second], abs=0.06)
    assert [row["transfer_ns"] / 1e6 for row in found] == pytest.approx([transfer] * 2, abs=0.06)


@pytest.mark.parametrize(
    ("name", "moved"),
    [
        (f"{EAGER}/eplb_off", []),
        (f"{EAGER}/eplb_on", []),
        (f"{GRAPHS}/eplb_off", []),
        (f"{GRAPHS}/eplb_on", [(2, 7)]),
        (f"{DP2}/eplb_off", []),
        (f"{DP2}/eplb_on", [(2, 7)]),
    ],
)
def test_rearrangements_inside_the_capture(
    unpacked: dict[Path, Path], name: str, moved: list[tuple[int, int]]
) -> None:
    found = frame(named(unpacked, name), "rearrangements")
    assert found.select("ranks", "transfers").rows() == moved


@pytest.mark.parametrize("name", BALANCE)
def test_clocks_of_one_host_agree_within_5_us(unpacked: dict[Path, Path], name: str) -> None:
    clocks = frame(named(unpacked, name), "clocks")
    assert clocks.height == 2
    assert not clocks["is_applied"].any()
    assert clocks["meetings"].min() >= 20  # type: ignore[operator]
    assert clocks["residual_ns"].max() < 5000  # type: ignore[operator]


@pytest.mark.parametrize(
    ("name", "wait", "moe", "host", "decode"),
    [
        (f"{EAGER}/eplb_off", 772.4, 14.3, 757.6, (739.6, -0.4, 739.8)),
        (f"{GRAPHS}/eplb_off", 63.5, 23.4, 39.2, (10.0, 9.3, 0.0)),
        (f"{GRAPHS}/eplb_on", 33.2, 14.3, 17.7, (14.1, 9.8, 3.3)),
    ],
)
def test_the_published_ledgers(
    unpacked: dict[Path, Path],
    name: str,
    wait: float,
    moe: float,
    host: float,
    decode: tuple[float, float, float],
) -> None:
    found = waits(named(unpacked, name), "collective")
    # The published ones leave bookkeeping and the moving of weights out.
    model = ("AllGather", "bf16")
    rows = [row for row in found.rows if any(part in row["collective"] for part in model)]
    for key, published in (("wait_ns", wait), ("moe", moe), ("host", host)):
        assert sum(row[key] for row in rows) / 1e6 == pytest.approx(published, abs=0.06), key
    for key, published in zip(("wait_ns", "moe", "host"), decode, strict=True):
        assert found.phases["decode"][key] / 1e6 == pytest.approx(published, abs=0.06), key
