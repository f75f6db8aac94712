"""What is read: /metrics of several versions, the engine's log, folders of dumps."""

from __future__ import annotations

import os
import random
import shutil
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from nsysmoe.metrics.routed_load.load_balance import vllm_balancedness
from nsysmoe.watch.definition import definition_of
from nsysmoe.watch.drops import Drops, read_dump
from nsysmoe.watch.eplb import EplbState
from nsysmoe.watch.follow import Tail
from nsysmoe.watch.histogram import Histogram
from nsysmoe.watch.routing import Dump, Judging, RoutingState, distance
from nsysmoe.watch.scrape import read_metrics
from nsysmoe.watch.tails import Tails
from tests.conftest import GRAPHS
from tests.watch import texts

pytest.importorskip("prometheus_client", reason="pip install 'nsysmoe[watch]'")

HERE = Path(__file__).parent
RECORDED = HERE / "vllm-0.26.0.engine.log"
METRICS = [HERE / f"vllm-0.26.0.metrics.{when}.txt" for when in ("serving", "idle")]


@pytest.mark.parametrize("release", texts.TPOT)
def test_metrics_of_several_releases(release: str) -> None:
    found = read_metrics(texts.metrics(release, running=(3.0, 4.0), ttft=[0.05] * 8))
    assert found.values == {
        "running": 7.0, "waiting": 4.0, "cache_ratio": 0.25, "generated": 200.0,
    }  # fmt: skip
    assert found.histograms["ttft"].total == 16
    assert found.tpot_name == texts.TPOT[release][-1], "a mean a request, where there is one"
    assert found.bad_lines == 0


def test_recorded_metrics() -> None:
    """A server that `nsysmoe capture` loaded: ten batches of up to 32, seven rounds of 32."""
    batches = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32]
    requests = sum(batches) + 7 * 32
    serving, idle = (read_metrics(path.read_text(encoding="utf-8")) for path in METRICS)
    assert (serving.bad_lines, idle.bad_lines) == (0, 0)
    assert (serving.values["running"], idle.values["running"]) == (32.0, 0.0)
    assert idle.values["generated"] == 2 * sum(batches) + 48 * 7 * 32
    assert {found.total for found in idle.histograms.values()} == {requests}
    assert idle.tpot_name == "vllm:request_time_per_output_token_seconds"
    # By eye: 57 within 60 ms, 198 within 80 ms, of 332.
    p50 = idle.histograms["ttft"].quantile(0.5)
    assert p50 == pytest.approx(0.06 + 0.02 * (166 - 57) / (198 - 57))
    tails = Tails(window_s=10.0)
    tails.add(0.0, serving)
    tails.add(3.0, idle)
    told = tails.told() or {}
    assert told["output_tok_per_s"] == (idle.values["generated"] - 9936) / 3
    assert (told["ttft"]["requests"], told["tpot"]["requests"]) == (0, 32), "all had their first"


@pytest.mark.parametrize(
    ("release", "tpot"),
    [
        ("0.10.2", "vllm:inter_token_latency_seconds"),
        ("0.20.0", "vllm:request_time_per_output_token_seconds"),
        ("0.33.0", "vllm:request_time_per_output_token_seconds"),
    ],
)
def test_metrics_of_the_loggers_of_several_releases(release: str, tpot: str) -> None:
    """Eight requests, told to the release's own logger.

    Their first tokens came after 50, 60, ... 120 ms, four more each after 10 ms; 3 run, 2 wait.
    """
    found = read_metrics((HERE / f"vllm-{release}.metrics.txt").read_text(encoding="utf-8"))
    assert found.bad_lines == 0
    assert found.tpot_name == tpot
    expected = {"running": 3.0, "waiting": 2.0, "cache_ratio": 0.25, "generated": 40.0}
    assert {key: found.values[key] for key in expected} == expected
    totals = {key: found.histograms[key].total for key in ("ttft", "tpot", "queue")}
    assert totals == {"ttft": 8, "tpot": 32 if "inter_token" in tpot else 8, "queue": 8}
    # Of buckets up to 60, 80, 100 and 250 ms: 2, 4, 6 and 8.
    assert found.histograms["ttft"].quantile(0.5) == pytest.approx(0.08)
    assert found.histograms["ttft"].quantile(0.95) == pytest.approx(0.1 + 0.15 * (7.6 - 6) / 2)


def test_hostile_metrics_are_counted_and_do_not_hide_others() -> None:
    bad = (
        'vllm:num_requests_running{engine="0\x1b[2J} 3\n'
        "vllm:num_requests_running notanumber\n"
        "vllm:num_requests_running{} NaN\n"
        'vllm:time_to_first_token_seconds_bucket{le="soon"} 4\n'
    )
    bad += 'vllm:num_requests_running{a="' + "x" * 100_000 + "\n"
    found = read_metrics(bad + texts.metrics("0.33.0"))
    assert found.values["running"] == 3.0
    assert found.bad_lines == 3


def test_quantiles_are_prometheus_own() -> None:
    found = Histogram((0.1, 0.5, 1.0, float("inf")), (10.0, 30.0, 40.0, 40.0))
    # rank 20 of 40 lies half way through the bucket from 0.1 to 0.5.
    assert found.quantile(0.5) == pytest.approx(0.1 + 0.4 * 10 / 20)
    assert found.quantile(0.25) == pytest.approx(0.1)
    assert Histogram((0.1, float("inf")), (0.0, 4.0)).quantile(0.5) == 0.1, "at least that"
    assert Histogram((0.1, float("inf")), (0.0, 0.0)).quantile(0.5) is None


def test_tails_are_of_the_window_and_restarts_are_no_negative_counts() -> None:
    tails = Tails(window_s=10.0)
    slow, fast = [5.0] * 100, [0.05] * 100
    tails.add(0.0, read_metrics(texts.metrics("0.33.0", ttft=slow, generated=0)))
    assert (tails.told() or {})["window_s"] is None
    tails.add(5.0, read_metrics(texts.metrics("0.33.0", ttft=slow + fast, generated=50)))
    told = tails.told() or {}
    assert told["ttft"]["requests"] == 100
    assert told["ttft"]["p99_s"] <= 0.1, "what was slow came before the window"
    assert told["output_tok_per_s"] == 10.0
    tails.add(10.0, read_metrics(texts.metrics("0.33.0", ttft=fast[:5], generated=1)))
    assert (tails.told() or {})["ttft"]["requests"] == 5
    assert (tails.told() or {})["output_tok_per_s"] is None


def test_a_recorded_log() -> None:
    state = EplbState()
    for line in RECORDED.read_bytes().splitlines():
        state.take(line)
    told = state.told() or {}
    assert told["rearrangements"] == 1, "that of the dummy run is none"
    assert told["rearranging_s"] == 0.24
    (model,) = told["models"]
    assert (model["model"], model["lines"], model["countdown"]) == ("model", 7, 64)
    assert (model["balancedness"], model["lowest"]) == (0.8649, 0.7273)
    assert told["definition"] == "unknown"
    assert told["since_rearrangement_s"] == 4.0


@pytest.mark.parametrize(("version", "definition"), [
    ("0.27.1", "over_layers"), ("v0.11.0", "over_layers"), ("0.28.0", "over_ranks"),
    ("0.33.0rc1+cu130", "over_ranks"), ("1.0", "over_ranks"), ("0.1.dev10", "unknown"),
    (None, "unknown"), ("\x1b[31m", "unknown"),
])  # fmt: skip
def test_what_a_logged_balancedness_means(version: str | None, definition: str) -> None:
    assert definition_of(version) == definition


def test_the_wrong_definition_cannot_see_a_hot_rank() -> None:
    loads = np.ones((4, 8))
    loads[:, 0] = 8.0
    # Reduced over layers, as vLLM did up to 0.27.1, and over ranks.
    assert loads.mean(axis=0).sum() / loads.max(axis=0).sum() == 1.0
    assert vllm_balancedness(loads) == pytest.approx(0.234, abs=5e-4)


def test_versions_and_queues_of_a_log() -> None:
    state = EplbState()
    state.take(b"INFO 11-21 23:00:00 [api_server.py:1] vLLM API server version 0.29.1")
    state.take(texts.load_line(0, 4, 1).encode())
    state.take(texts.load_line(1, 6, 2).encode())
    state.take(texts.load_line(0, 5, 0).encode())
    assert state.version == "0.29.1"
    assert state.queue() == {"running": 11.0, "waiting": 2.0, "cache_ratio": 0.125}
    assert EplbState("0.27.0").version == "0.27.0"


def test_lines_of_old_releases_and_of_asynchronous_rearrangements() -> None:
    state = EplbState("0.11.0")
    state.take(texts.old_eplb_line(value=0.95).encode())
    state.take(b"INFO 11-21 23:05:38 [eplb_state.py:433] Rearranging experts (profile)...")
    state.take(b"INFO 11-21 23:05:39 [eplb_state.py:433] Rearranging experts ...")
    state.take(b"INFO 11-21 23:05:40 [eplb_state.py:550] Rearranged experts in 0.25 seconds.")
    told = state.told() or {}
    assert (told["definition"], told["rearrangements"], told["rearranging_s"]) == (
        "over_layers", 1, 0.25,
    )  # fmt: skip
    (model,) = told["models"]
    assert (model["balancedness"], model["countdown"], model["step"]) == (0.95, None, None)
    new = EplbState("0.33.0")
    for _ in range(3):
        new.take(b"INFO 11-21 23:05:39 [eplb_state.py:786] Rearranging experts (async mode) ...")
    new.take(b"INFO 11-21 23:05:39 [eplb_state.py:927] [EPLB] Skip rearrange: imbalance 1.1 -> 1.1")
    told = new.told() or {}
    assert (told["rearrangements"], told["skipped"], told["last_rearrangement_s"]) == (3, 1, None)


def test_a_step_without_tokens_has_no_balance() -> None:
    state = EplbState()
    state.take(texts.eplb_line(1, 9, value=0.9).encode())
    state.take(texts.eplb_line(2, 8, avg=0.0, most=0, value=0.0).encode())
    (model,) = (state.told() or {})["models"]
    assert (model["balancedness"], model["lowest"], model["idle_lines"]) == (None, 0.9, 1)


def test_hostile_lines_stay_text_and_names_stay_few() -> None:
    state = EplbState()
    state.take(b"EPLB step: 99999999999999999999 for model x: avg_tokens=1.0, max_tokens=1, ")
    state.take(texts.eplb_line(1, 2, model="a: avg_tokens=\x1b[2J[red]").encode())
    state.take(b"Running: 999999999999999999 reqs, Waiting: 1 reqs")
    state.take(b"EPLB step: " + b"9" * 60_000)
    state.take(b"\xff\xfeRearranged experts \x00 in 1.2.3 s.")
    for number in range(1000):
        state.take(texts.eplb_line(1, 2, model=f"m{number}").encode())
        state.take(texts.load_line(number * 7, 1, 1).encode())
    assert len((state.told() or {})["models"]) == 16
    assert (state.told() or {})["rearrangements"] == 0


def test_a_log_that_grows_rotates_and_has_endless_lines(tmp_path: Path) -> None:
    path = tmp_path / "engine.log"
    path.write_bytes(b"one\ntw")
    tail = Tail(path)
    assert list(tail.lines(1 << 20)) == [b"one"]
    with path.open("ab") as file:
        file.write(b"o\n" + b"x" * (1 << 20) + b"end\nthree\n")
    assert list(tail.lines(1 << 22)) == [b"two", b"three"]
    assert tail.cut == 1
    path.rename(tmp_path / "engine.log.1")
    path.write_bytes(b"new\n")
    assert list(tail.lines(1 << 20)) == [b"new"]
    path.write_bytes(b"")
    assert list(tail.lines(1 << 20)) == []
    path.write_bytes(b"cut\n")
    assert list(tail.lines(1 << 20)) == [b"cut"]


def test_memory_does_not_grow_with_the_log(tmp_path: Path) -> None:
    path = tmp_path / "engine.log"
    lines = "".join(
        texts.eplb_line(step, 128 - step % 128, value=0.5 + step % 50 / 100)
        + texts.load_line(step % 8, step % 300, 0)
        for step in range(2000)
    )

    def peak(copies: int) -> int:
        path.write_text(lines * copies)
        tracemalloc.start()
        tail, state = Tail(path), EplbState()
        for line in tail.lines(1 << 40):
            state.take(line)
        held = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert state.lines == 4000 * copies
        return held

    # Blocks of 1 MiB, and what their lines are while they are looked at.
    few = peak(4)
    assert few > 1 << 20
    assert peak(12) < few * 1.1


@pytest.mark.parametrize("block", [1, 7, 100])
def test_lines_do_not_depend_on_where_blocks_end(tmp_path: Path, block: int) -> None:
    path = tmp_path / "engine.log"
    draw = random.Random(block)
    lines = [bytes(draw.choices(b"abc", k=draw.randrange(20))) for _ in range(50)]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    tail, found = Tail(path), list[bytes]()
    for _ in range(2000):
        found += tail.lines(block)
    assert found == lines


def test_dumps_are_judged_by_device_and_domain() -> None:
    state = RoutingState(Judging(gpus=2, capacity=1.0))
    even = np.full((2, 4), 10.0)
    hot = np.array([[40.0, 0.0, 0.0, 0.0], [10.0, 10.0, 10.0, 10.0]])
    state.add(Dump("a", "chat", even))
    state.add(Dump("b", "code", hot))
    told = state.told() or {}
    # Sum of means 40 over sum of maxima 40 + 20.
    assert told["balancedness"] == pytest.approx(40 / 60)
    assert [row["balancedness"] for row in told["layers"]] == [0.5, 1.0]
    assert told["layers"][0]["hottest"][0] == {"expert": 0, "share": 1.0}
    assert told["dropped_ratio"] == pytest.approx(30 / 80)
    assert told["drift"] is None, "the first of its domain"
    (between,) = told["domain_drift"]
    assert between["domains"] == ["chat", "code"]
    # Shares 1/4 against 1 for one expert, in one of two layers.
    assert between["drift"] == pytest.approx(0.75 / 2)
    assert between["moved"][0] == {"layer": 0, "expert": 0, "shares": [0.25, 1.0]}
    assert [row["hottest"][0] for row in told["domains"]] == [
        {"layer": 0, "expert": 0, "share": 0.25}, {"layer": 0, "expert": 0, "share": 1.0},
    ]  # fmt: skip
    state.add(Dump("c", "chat", np.ones((1, 8))))
    assert [row["domain"] for row in (state.told() or {})["domains"]] == ["chat"]


def test_domains_that_take_turns_are_no_drift_and_one_that_changes_is() -> None:
    chat, code = np.array([[90.0, 10.0]]), np.array([[10.0, 90.0]])
    state = RoutingState(Judging())
    for _ in range(5):
        for domain, loads in (("chat", chat), ("code", code)):
            state.add(Dump("x", domain, loads))
    assert (state.told() or {})["drift"] == pytest.approx(0.0)
    state.add(Dump("x", "chat", code))
    assert (state.told() or {})["drift"] == pytest.approx(0.8)
    for _ in range(100):
        state.add(Dump("x", "chat", code))
    told = state.told() or {}
    assert told["drift"] == pytest.approx(0.0, abs=0.01), "what was long ago has faded"
    assert told["domains"][0]["choices"] == 106 * 100


def test_one_dump_back_compares_neighbours() -> None:
    state = RoutingState(Judging(recent=1))
    for loads in ([[1.0, 1.0]], [[1.0, 3.0]], [[1.0, 1.0]]):
        state.add(Dump("x", "", np.array(loads)))
    assert (state.told() or {})["drift"] == pytest.approx(0.25)


@pytest.mark.parametrize("choices", [300, 3000])
def test_what_chance_makes_of_equal_shares_against_drawing_them(choices: int) -> None:
    draw = np.random.default_rng(choices)
    shares = draw.dirichlet(np.ones(16), size=3)
    found, told = [], []
    for _ in range(200):
        state = RoutingState(Judging(recent=4))
        for _ in range(8):
            loads = np.stack([draw.multinomial(choices, row) for row in shares]).astype(float)
            state.add(Dump("x", "", loads))
        page = state.told() or {}
        found.append(page["drift"])
        told.append(page["drift_by_chance"])
    assert np.mean(told) == pytest.approx(np.mean(found), rel=0.05)


def test_a_map_tells_which_device_is_busy() -> None:
    hot = np.array([[30.0, 30.0, 10.0, 10.0]])
    inside = RoutingState(Judging(gpus=2, map=np.array([[0, 2, 1, 3]])))
    inside.add(Dump("a", "", hot))
    assert (inside.told() or {})["balancedness"] == 1.0
    experts = RoutingState(Judging())
    experts.add(Dump("a", "", hot))
    assert (experts.told() or {})["over"] == "experts"
    assert (experts.told() or {})["balancedness"] == pytest.approx(20 / 30)


def test_distances_of_shares() -> None:
    one, other = np.array([[1.0, 0.0]]), np.array([[0.0, 5.0]])
    assert distance(one, one * 7) == 0.0
    assert distance(one, other) == 1.0
    assert distance(one, np.zeros((1, 2))) is None


def test_files_are_read_once_when_they_are_at_rest(tmp_path: Path) -> None:
    drops = Drops(tmp_path)
    (tmp_path / "code").mkdir()
    for name in ("run.json", "notes.txt", ".hidden.npz"):
        (tmp_path / name).touch()
    path = tmp_path / "code" / "r.npz"
    shutil.copy(GRAPHS / "eplb_off.routed.npz", path)
    assert drops.fresh() == [], "it may still grow"
    os.utime(path, (time.time() - 5, time.time() - 5))
    assert drops.fresh() == [path]
    assert drops.fresh() == []
    assert drops.domain_of(path) == "code"
    dump = read_dump(path, "code")
    assert dump.loads.shape == (8, 8)
    os.utime(path, (time.time() - 3, time.time() - 3))
    assert drops.fresh() == [path], "written anew"
