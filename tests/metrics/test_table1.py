"""Changes and verdicts."""

from __future__ import annotations

import pytest

from nsysmoe.metrics.kernel_time.table1 import BESIDE, TABLE_1, relative_change, verdict


def test_the_order_that_json_promises() -> None:
    assert [(metric.group, metric.key) for metric in (*TABLE_1, *BESIDE)][:13] == [
        ("moe_kernel", "total_time_ns"),
        ("moe_kernel", "mean_ns"),
        ("moe_kernel", "max_ns"),
        ("moe_kernel", "stddev_ns"),
        ("moe_kernel", "cv"),
        ("moe_kernel", "max_min_ratio"),
        ("communication", "nccl_total_ns"),
        ("communication", "allreduce_total_ns"),
        ("moe_kernel", "launches"),
        ("moe_kernel", "min_ns"),
        ("moe_kernel", "median_ns"),
        ("moe_kernel", "p95_ns"),
        ("moe_kernel", "p99_ns"),
    ]


@pytest.mark.parametrize(
    ("baseline", "candidate", "change", "judged"),
    [
        (100, 110, 0.1, "worse"),
        (100, 90, -0.1, "better"),
        (100_000, 100_049, 0.00049, "same"),
        (100_000, 100_051, 0.00051, "worse"),
        (100_000, 99_949, -0.00051, "better"),
        (0, 0, None, "same"),
        (0, 5, None, "worse"),
        (5, 0, -1.0, "better"),
        (None, 5, None, None),
        (5, None, None, None),
    ],
)
def test_change_and_verdict(
    baseline: int | None, candidate: int | None, change: float | None, judged: str | None
) -> None:
    found = relative_change(baseline, candidate)
    assert found == (None if change is None else pytest.approx(change))
    assert verdict(baseline, candidate) == judged
