"""Any trace of any version gives the oracle's numbers."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.builder import VERSIONS, TraceBuilder
from nsysmoe.analysis.one_trace.kernels import kernel_table
from nsysmoe.analysis.reading.run import read_run
from tests.oracle import kernel_durations, statistics_of

NAMES = st.sampled_from(
    [
        "fused_moe_kernel",
        "ncclDevKernel_AllReduce_Sum_u32_RING_LL(x)",
        "ncclDevKernel_AllGather_RING_LL(x)",
        "void vllm::rms_norm_kernel<float>(float*)",
        "my_nccl_tests_helper",
        "<b>'; DROP TABLE kernels --\x1b[2J",
        "",
    ]
)
EVENT = st.fixed_dictionaries(
    {
        "name": NAMES,
        "start": st.integers(-(10**9), 2 * 10**18),
        "dur": st.integers(0, 10**10),
        "device": st.integers(0, 3),
        "pid": st.sampled_from([1000, 2000, None]),
        "correlation": st.integers(1, 3),
    }
)


# Few traces, since writing and reading one takes long, of more kernels each.
@settings(max_examples=12)
@given(
    version=st.sampled_from(VERSIONS),
    events=st.lists(EVENT, min_size=1, max_size=80),
    seed=st.integers(0, 99),
)
def test_kernels_and_table_1(version: str, events: list[dict[str, Any]], seed: int) -> None:
    build = TraceBuilder(version)
    random.Random(seed).shuffle(events)
    for event in events:
        build.kernel(**event)
    with tempfile.TemporaryDirectory() as folder:
        path = build.write(Path(folder) / "t.sqlite")
        oracle = kernel_durations(path)
        rows = kernel_table(path).rows
        run = read_run(path)
    assert {row["name"] for row in rows} == oracle.keys()
    for row in rows:
        _assert_equal(row, statistics_of(oracle[row["name"]]))
    if moe := oracle.get("fused_moe_kernel"):
        _assert_equal(run.durations.row(0, named=True), statistics_of(moe))
    nccl = [d for name, found in oracle.items() if name.startswith("nccl") for d in found]
    communication = run.communication.row(0, named=True)
    assert communication["nccl_total_ns"] == sum(nccl)
    assert communication["allreduce_total_ns"] == sum(
        oracle.get("ncclDevKernel_AllReduce_Sum_u32_RING_LL(x)", [])
    )


def _assert_equal(found: dict[str, Any], expected: dict[str, Any]) -> None:
    for key in found.keys() & expected.keys():
        if isinstance(expected[key], int):
            assert found[key] == expected[key], key
        elif expected[key] is None:
            assert found[key] is None, key
        else:
            assert found[key] == pytest.approx(expected[key], rel=1e-9, abs=1e-6), key
