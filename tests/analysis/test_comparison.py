"""Table 1: the published one, the real pair's, and small ones to check by eye."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import nsysmoe
from fixtures.builder import TraceBuilder
from nsysmoe.errors import InputError, MissingDataError
from nsysmoe.reports import render
from nsysmoe.reports.pages.comparing.comparison import comparison_page
from tests.conftest import DP2, TABLE1, small_trace
from tests.oracle import kernel_durations, statistics_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from nsysmoe import Comparison
    from nsysmoe.findings import Finding

    Write = Callable[[TraceBuilder], Path]


# Traces are written and then only read: what is read of one arm is there for the next comparison.
pytestmark = pytest.mark.usefixtures("settled")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_trace().write(tmp_path_factory.mktemp("small") / "small.sqlite")


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One launch of a MoE kernel of 5 ns on one GPU, and nothing else."""
    build = TraceBuilder().kernel("fused_moe_kernel", 0, 5)
    return build.write(tmp_path_factory.mktemp("one") / "one.sqlite")


def codes(comparison: Comparison) -> list[str]:
    return [finding.code for finding in comparison.findings]


def test_the_published_table() -> None:
    found = nsysmoe.compare(TABLE1 / "eplb_off.csv", TABLE1 / "eplb_on.csv")
    table = [(f"{100 * (change.change or 0):+.1f}", change.verdict) for change in found.metrics[:8]]
    assert table == [
        ("+5.6", "worse"),
        ("+3.9", "worse"),
        ("-5.9", "better"),
        ("-1.1", "better"),
        ("-4.8", "better"),
        ("-7.0", "better"),
        ("+7.6", "worse"),
        ("+51.5", "worse"),
    ]
    assert found.metric("p95_ns").baseline is None
    work = next(f for f in found.findings if f.code == "unequal_work")
    assert work.evidence["launches_change"] == pytest.approx(0.0163, abs=5e-5)
    assert "rounded_input" in codes(found)


def test_the_real_pair_equals_an_independent_reading(off: Path, on: Path) -> None:
    found = nsysmoe.compare(off, on)
    for path, side in ((off, "baseline"), (on, "candidate")):
        durations = kernel_durations(path)
        expected = statistics_of(durations["fused_moe_kernel"])
        expected["total_time_ns"] = expected["total_ns"]
        expected["nccl_total_ns"] = sum(
            sum(d) for name, d in durations.items() if name.startswith("nccl")
        )
        expected["allreduce_total_ns"] = sum(
            sum(d) for name, d in durations.items() if name.startswith("ncclDevKernel_AllReduce_")
        )
        for change in found.metrics[:13]:
            assert getattr(change, side) == pytest.approx(expected[change.metric], rel=1e-12)


def test_the_real_pair_shows_the_trap_of_totals(off: Path, on: Path) -> None:
    found = nsysmoe.compare(off, on)
    assert (found.metric("total_time_ns").change or 0.0) > 0
    assert found.metric("total_time_ns").verdict == "within_noise", "of steps"
    slowest = [
        max(row.total_ns for row in side.breakdown if row.group == "moe_kernel")
        for side in (found.baseline, found.candidate)
    ]
    assert slowest[1] < 0.86 * slowest[0]


def test_what_the_totals_hide_is_said(off: Path, on: Path) -> None:
    found = nsysmoe.compare(off, on)
    assert {"totals_mislead", "balance", "waiting"} <= set(codes(found))
    severities = [finding.severity for finding in found.findings]
    # How many runs there are goes before what they show.
    assert codes(found)[0] == "single_run"
    explained = [finding.explains_ns for finding in found.findings[1:]]
    assert "error" not in severities
    assert explained == sorted(explained, reverse=True)
    assert explained[0] > explained[1] > 0
    evidence = {finding.code: finding.evidence for finding in found.findings}
    misled = evidence["totals_mislead"]
    assert misled["total_time_change"] == pytest.approx(0.0098, abs=1e-4)
    assert misled["critical_change"] < -0.1
    assert misled["slowest_rank_change"] == pytest.approx(106448857 / 125923854 - 1)
    balance = evidence["balance"]
    for side in ("baseline", "candidate"):
        part = balance[side]
        assert part["mean_ns"] + part["excess_ns"] == pytest.approx(part["critical_ns"])
    assert evidence["waiting"]["baseline"]["wait_ratio"] > 0.9


def test_totals_that_agree_with_balance_mislead_nobody(small: Path) -> None:
    found = codes(nsysmoe.compare(small, small))
    assert "totals_mislead" not in found
    assert "balance" in found


def test_ranks_that_cannot_be_paired_say_nothing_of_balance(small: Path, one: Path) -> None:
    found = codes(nsysmoe.compare(small, one))
    assert not {"totals_mislead", "balance"} & set(found)


def test_json_has_the_promised_keys(off: Path, on: Path) -> None:
    found = json.loads(json.dumps(nsysmoe.compare(off, on).to_dict()))
    assert found["schema_version"] == 1
    assert found["baseline"]["label"] == "EPLB OFF"
    assert found["baseline"]["sources"] == [str(off)]
    for metric in found["metrics"]:
        assert metric.keys() == {
            "group", "metric", "baseline", "candidate", "change", "verdict", "interval",
            "uncertainty_ns", "baseline_values", "candidate_values",
        }  # fmt: skip
    for finding in found["findings"]:
        assert finding.keys() == {"code", "severity", "message", "evidence"}
    integers = {"total_time_ns", "max_ns", "min_ns", "nccl_total_ns", "launches"}
    for metric in found["metrics"]:
        if metric["metric"] in integers:
            assert isinstance(metric["baseline"], int)


def test_a_saved_comparison_is_the_same(off: Path, on: Path, tmp_path: Path) -> None:
    found = nsysmoe.compare(off, on, baseline_label="a", candidate_label="b")
    found.save(tmp_path / "c.json")
    assert nsysmoe.Comparison.load(tmp_path / "c.json") == found


def test_keys_of_later_and_metrics_of_earlier_versions(off: Path, on: Path, tmp_path: Path) -> None:
    values = nsysmoe.compare(off, on).to_dict()
    values["metrics"][0]["added_later"] = 1
    values["baseline"]["breakdown"][0]["added_later"] = 1
    del values["metrics"][13]
    path = tmp_path / "c.json"
    path.write_text(json.dumps(values))
    assert "fused_moe Total Time (ms)" in render(
        comparison_page(nsysmoe.Comparison.load(path), full=True), "table"
    )


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema_version": 2}', "null"])
def test_what_is_no_saved_comparison(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.json"
    path.write_text(text)
    with pytest.raises(InputError):
        nsysmoe.Comparison.load(path)


def whole(values: dict[str, Any]) -> dict[str, Any]:
    """Return a comparison with an interval and what users saw."""
    known = ("baseline", "candidate", "change")
    interval = {
        "low": -0.1, "high": 0.1, "level": 0.95, "over": "runs", "baseline_n": 3, "candidate_n": 3,
    }  # fmt: skip
    values["metrics"][0]["interval"] = dict(interval)
    values["latency"] = [{
        "metric": "ttft_s", "higher_is_better": False, "baseline_runs": 1, "candidate_runs": 1,
        **{f"{key}{which}": 1.5 for key in known for which in ("", "_unprofiled")},
        "interval": None, "interval_unprofiled": dict(interval),
    }]  # fmt: skip
    return values


# Where, which key, and what cannot stand there; ... for a key that is missing.
WRONG: list[tuple[tuple[str | int, ...], str, list[Any]]] = [
    (("latency", 0), "baseline_runs", [..., None, "1", 1.5, [], True]),
    (("latency", 0), "candidate_runs", [..., None, "1", 1.5, [], True]),
    (("latency", 0), "higher_is_better", [..., None, "1", 1, []]),
    *(
        check
        for where in (("metrics", 0, "interval"), ("latency", 0, "interval_unprofiled"))
        for check in (
            (where, "low", [..., None, "0"]),
            (where, "level", [..., None, "95", [0.95], True]),
            (where, "over", [..., None, 1]),
            (where, "baseline_n", [..., None, 1.5]),
        )
    ),
    (("metrics", 0), "interval", [{}, [], 0, "", False]),
    (("latency", 0), "interval", [{}, [], 0, "", False]),
    (("metrics", 0), "group", [..., None, 1, ["moe_kernel"], "moe", ""]),
    (("metrics", 0), "baseline_values", [[True], ["1"], [1, 2]]),
    (("metrics", 0), "candidate_values", [[True], ["1"], [1, 2]]),
    (("metrics", 0), "baseline", [True]),
    (("baseline", "breakdown", 0), "launches", [True]),
]


@pytest.fixture(scope="module")
def saved() -> str:
    """A comparison that holds every field, as JSON; it is loaded and shown."""
    found = nsysmoe.compare(DP2 / "eplb_off.sqlite", DP2 / "eplb_on.sqlite")
    return json.dumps(whole(found.to_dict()))


def test_a_comparison_with_every_field_is_shown(saved: str, tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text(saved)
    assert render(comparison_page(nsysmoe.Comparison.load(path), full=True), "table")


@pytest.mark.parametrize(
    ("where", "key", "wrong"),
    [(where, key, wrong) for where, key, wrongs in WRONG for wrong in wrongs],
)
def test_values_of_another_kind_are_refused(
    saved: str, tmp_path: Path, where: tuple[str | int, ...], key: str, wrong: Any
) -> None:
    values = json.loads(saved)
    path = tmp_path / "c.json"
    found: Any = values
    for step in where:
        found = found[step]
    if wrong is ...:
        del found[key]
    else:
        found[key] = wrong
    path.write_text(json.dumps(values))
    with pytest.raises(InputError, match="is not a comparison that nsysmoe saved"):
        nsysmoe.Comparison.load(path)


def test_values_of_runs_are_as_many_as_the_files(small: Path, tmp_path: Path) -> None:
    values = nsysmoe.compare([small, small], small).to_dict()
    path = tmp_path / "c.json"
    # Earlier versions wrote none.
    for told in ([1, 2], []):
        values["metrics"][0]["baseline_values"] = told
        path.write_text(json.dumps(values))
        assert nsysmoe.Comparison.load(path).metrics[0].baseline_values == tuple(told)
    for told in ([1], [1, 2, 3]):
        values["metrics"][0]["baseline_values"] = told
        path.write_text(json.dumps(values))
        with pytest.raises(InputError):
            nsysmoe.Comparison.load(path)


def test_no_moe_kernel_is_an_error_not_zeros(small: Path, written: Write) -> None:
    other = written(TraceBuilder().kernel("remoe_layer", 0, 1))
    with pytest.raises(MissingDataError, match="no MoE kernel"):
        nsysmoe.compare(small, other)
    hidden = written(TraceBuilder().kernel("k", 0, 1).graph(0, 9))
    with pytest.raises(MissingDataError, match="--cuda-graph-trace=node"):
        nsysmoe.compare(hidden, small)


def test_same_file_by_path_and_by_content(small: Path, tmp_path: Path) -> None:
    assert "same_file" in codes(nsysmoe.compare(small, small))
    copy = shutil.copy(small, tmp_path / "copy.sqlite")
    found = nsysmoe.compare(small, copy)
    assert "same_file" in codes(found)
    assert {change.verdict for change in found.metrics} == {"same"}


def test_lost_device(small: Path, written: Write) -> None:
    one = TraceBuilder().gpu(0).device(1000, 0, 0).kernel("fused_moe_kernel", 0, 5)
    found = nsysmoe.compare(small, written(one))
    finding = next(f for f in found.findings if f.code == "lost_device")
    assert finding.evidence == {"baseline_gpus": 2, "candidate_gpus": 1}


def test_two_processes_on_one_gpu_are_one_gpu(written: Write) -> None:
    both = TraceBuilder().device(1000, 0, 0).device(2000, 0, 0)
    both.kernel("fused_moe_kernel", 0, 5).kernel("fused_moe_kernel", 9, 5, pid=2000)
    one = TraceBuilder().device(1000, 0, 0).kernel("fused_moe_kernel", 0, 5)
    assert "lost_device" not in codes(nsysmoe.compare(written(both), written(one)))


def test_graphs_recorded_as_a_whole(small: Path, written: Write) -> None:
    hidden = TraceBuilder().kernel("fused_moe_kernel", 0, 5).graph(10, 100).graph(200, 50)
    found = nsysmoe.compare(small, written(hidden))
    finding = next(f for f in found.findings if f.code == "cuda_graph_mode")
    assert finding.evidence["graph_launches"] == 2
    assert finding.evidence["graph_total_ns"] == 150
    assert "the candidate" in finding.message


def test_bookkeeping_and_other_allreduce(small: Path, written: Write) -> None:
    other = TraceBuilder().kernel("fused_moe_kernel", 0, 5)
    other.kernel("void vllm::cross_device_reduce_1stage<half>(int)", 10, 77)
    found = nsysmoe.compare(small, written(other))
    bookkeeping = next(f for f in found.findings if f.code == "bookkeeping_allreduce")
    assert bookkeeping.evidence["baseline"] == {
        "bookkeeping_ns": 10,
        "allreduce_total_ns": 24,
        "ratio": pytest.approx(10 / 24),
    }
    outside = next(f for f in found.findings if f.code == "other_allreduce")
    assert outside.evidence["candidate_ns"] == 77
    assert found.metric("allreduce_total_ns").candidate == 0


def _with_eplb(*, sends: int = 0) -> TraceBuilder:
    build = TraceBuilder().kernel("fused_moe_kernel", 0, 5)
    build.kernel("_eplb_map_and_record_i32_kernel", 10, 1)
    for number in range(sends):
        build.kernel("ncclDevKernel_SendRecv(x)", 20 + 10 * number, 5)
    return build


def test_signs_of_eplb(one: Path, written: Write) -> None:
    with_eplb, moving = written(_with_eplb()), written(_with_eplb(sends=3))

    def said(baseline: Path, candidate: Path) -> Finding:
        found = nsysmoe.compare(baseline, candidate).findings
        return next(finding for finding in found if finding.code == "eplb_activity")

    assert "no rearrangement falls into the capture" in said(one, with_eplb).message
    assert "3 SendRecv kernels" in said(one, moving).message
    assert said(one, moving).evidence["candidate"] == {
        "map_launches": 1,
        "send_recv_launches": 3,
        "send_recv_ns": 15,
    }
    assert "swapped?" in said(with_eplb, one).message
    assert "neither arm" in said(one, one).message
    assert "both arms" in said(with_eplb, with_eplb).message


def test_what_communication_is_made_of(off: Path, on: Path) -> None:
    mix = next(f for f in nsysmoe.compare(off, on).findings if f.code == "communication_mix")
    for side in ("baseline", "candidate"):
        assert sum(part["time_ratio"] for part in mix.evidence[side].values()) == pytest.approx(1)
    assert "broadcast went from 0 to" in mix.message


def test_one_launch_has_no_deviation(one: Path, written: Write) -> None:
    two = written(TraceBuilder().kernel("fused_moe_kernel", 0, 9))
    change = nsysmoe.compare(one, two).metric("stddev_ns")
    assert (change.baseline, change.candidate, change.verdict) == (None, None, None)


def test_classes_of_the_users_own(small: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text('[[rule]]\nclass = "moe_gemm"\nfunction = "rms_norm_kernel"\n')
    class_map = nsysmoe.default_class_map().extended_by(own)
    found = nsysmoe.compare(small, small, class_map=class_map)
    assert found.metric("launches").baseline == 6
    assert found.baseline.moe_functions() == ["fused_moe_kernel", "rms_norm_kernel"]
