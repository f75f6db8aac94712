"""Routing to time on traces whose durations were made from known costs, replicas among them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from fixtures.builder import TraceBuilder
from nsysmoe.analysis.one_trace.roofline import Limits, roofline
from nsysmoe.analysis.routing.routed import Choices, Inputs, read_arm
from nsysmoe.analysis.routing.routing_cost import Explanation, explain
from nsysmoe.errors import MissingDataError, RoutingError
from nsysmoe.metrics.kernel_time.tiles import default_rows, row_blocks
from nsysmoe.routing import ModelShape
from tests.conftest import DP2, GRAPHS
from tests.routing.engine import Engine, engine

LAYERS, EXPERTS, TOP_K, RANKS = 2, 8, 2, 2
WIDTHS = {"w13": 2048, "w2": 512}
# a, b, c in ns, by product; costs of a row in prefill, where BM is another.
COSTS = {
    ("w13", "decode"): (10_000, 40_000, 300), ("w2", "decode"): (6_000, 20_000, 200),
    ("w13", "prefill"): (30_000, 0, 500), ("w2", "prefill"): (20_000, 0, 250),
}  # fmt: skip
SPARE = [0, 1, 2, 3, 4, 0, 1, 5, 6, 7]  # experts 0 and 1 live on both ranks


class Made:
    """A served workload as a trace, a log and a record; what each launch did is in ``work``."""

    def __init__(self, folder: Path, maps: list[list[int]] | None, seed: int = 1) -> None:
        random = Random(seed)
        self.served: Engine = engine(seed, 40, 24, 400, late=1)
        self.served.prompts = [20 * prompt for prompt in self.served.prompts]
        self.served = Engine(
            self.served.prompts, self.served.outputs, 24, 1400, self.served.arrivals
        ).run()
        self.routes = [
            np.array(
                [
                    [sorted(range(EXPERTS), key=lambda e: random.random() * (1 + e))[:TOP_K]
                     for _ in range(LAYERS)]
                    for _ in range(prompt + output - 1)
                ]
            )
            for prompt, output in zip(self.served.prompts, self.served.outputs, strict=True)
        ]  # fmt: skip
        self.maps = maps or [list(range(EXPERTS))] * LAYERS
        self.work: list[dict[str, Any]] = []
        folder.mkdir()
        self.inputs = Inputs(
            self.trace(folder / "trace.sqlite"), folder / "routed.npz", folder / "run.json"
        )
        arrays: dict[str, Any] = {f"r{n}": r for n, r in enumerate(self.routes)}
        np.savez(self.inputs.routed, **arrays)
        self.record(maps)

    def record(self, maps: Any, before: Any = None, **more: Any) -> None:
        states, earlier = (
            [{"models": {"m": {"physical_to_logical_map": each}}}] if each else [None]
            for each in (maps, before or maps)
        )
        document = {
            "vllm": "0.26.0",
            "args": {"ep": "on", "max_num_seqs": 24, "max_num_batched_tokens": 1400, **more},
            "runs": [
                {
                    "requests": [
                        {"prompt_tokens": p, "output_tokens": o}
                        for p, o in zip(self.served.prompts, self.served.outputs, strict=True)
                    ]
                }
            ],
            "eplb_before": earlier,
            "eplb_after": states,
        }
        self.inputs.run.write_text(json.dumps(document), encoding="utf-8")

    def trace(self, path: Path) -> Path:
        build = TraceBuilder()
        at, correlation = 1000, 0
        for label, fed in zip(self.served.labels, self.served.fed, strict=True):
            text = (
                f"execute_context_{label['context_requests']}({label['context_tokens']})"
                f"_generation_{label['generation_requests']}({label['generation_tokens']})"
            )
            phase = "prefill" if label["context_requests"] else "decode"
            for rank in range(RANKS):
                build.range(text, at, 900, pid=1000 * (rank + 1))
            start = [at + 1000] * RANKS
            for layer in range(LAYERS if fed else 0):
                counts = self.counts(sorted(fed), layer)
                for gemm in ("w13", "w2"):
                    for rank in range(RANKS):
                        correlation += 1
                        found = self.launch(counts[rank], gemm, phase, len(fed))
                        build.call(at + 10, 5, pid=1000 * (rank + 1), correlation=correlation)
                        build.kernel(
                            "fused_moe_kernel", start[rank], found["dur"], device=rank,
                            pid=1000 * (rank + 1), correlation=correlation,
                            grid=(found["blocks"], 1, 1),
                        )  # fmt: skip
                        self.work.append({**found, "rank": rank, "layer": layer})
                        start[rank] += found["dur"] + 100
            at = max(start) + 1000
        for rank in range(RANKS):
            build.gpu(rank).process(1000 * (rank + 1), "python3")
            build.device(1000 * (rank + 1), rank, rank)
        return build.write(path)

    def counts(self, fed: list[tuple[int, int]], layer: int) -> list[Counter[int]]:
        """Count rows of physical experts by plain loops, a replica by the row's hash."""
        physical = self.maps[layer]
        held = len(physical) // RANKS
        counts: list[Counter[int]] = [Counter() for _ in range(RANKS)]
        for row, (request, token) in enumerate(fed):
            for expert in self.routes[request][token][layer]:
                replicas = [p for p, logical in enumerate(physical) if logical == expert]
                slot = replicas[(row * 2654435769 % 2**32) % len(replicas)]
                counts[slot // held][slot] += 1
        return counts

    def launch(self, counts: Counter[int], gemm: str, phase: str, tokens: int) -> dict[str, Any]:
        rows = default_rows(tokens)
        a, b, c = COSTS[gemm, phase]
        padded = sum(-(-n // rows) * rows for n in counts.values())
        columns = 64 if tokens <= 64 else 128
        return {
            "gemm": gemm, "phase": phase, "active": len(counts), "rows": sum(counts.values()),
            "padded": padded, "block_m": rows, "dur": a + b * len(counts) + c * padded,
            "blocks": row_blocks(tokens, TOP_K, len(self.maps[0]), rows)
            * -(-WIDTHS[gemm] // columns),
        }  # fmt: skip


@pytest.fixture(scope="module")
def off(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("made") / "off", None)


@pytest.fixture(scope="module")
def spare(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("made") / "on", [SPARE] * LAYERS)


@pytest.fixture(scope="module")
def found(off: Made, spare: Made) -> Explanation:
    return explain(off.inputs, spare.inputs)


@pytest.mark.parametrize("which", ["off", "spare"])
@pytest.mark.parametrize("widths", [None, WIDTHS])
def test_work_of_every_launch(
    which: str, widths: dict[str, int] | None, request: pytest.FixtureRequest
) -> None:
    made: Made = request.getfixturevalue(which)
    arm = read_arm(made.inputs, Choices(widths, experts=EXPERTS))
    columns = ["rank", "layer", "gemm", "phase", "rows", "active", "padded_rows", "block_m",
               "dur_ns"]  # fmt: skip
    there = arm.launches.sort("rank", "ordinal").select(columns).rows()
    expected = [
        (w["rank"], w["layer"], w["gemm"], w["phase"], w["rows"], w["active"], w["padded"],
         w["block_m"], w["dur"])
        for rank in range(RANKS)
        for w in made.work
        if w["rank"] == rank
    ]  # fmt: skip
    assert there == expected
    assert arm.ranks == RANKS
    assert [finding.code for finding in arm.findings] == (
        ["replica_choice"] if which == "spare" else []
    )


def test_costs_are_those_that_durations_were_made_from(found: Explanation) -> None:
    assert {row["phase"] for row in found.costs} == {"decode", "prefill"}
    for row in found.costs:
        assert row["r2"] == pytest.approx(1, abs=1e-9)
        a, b, c = COSTS[row["gemm"], row["phase"]]
        if row["phase"] == "decode":
            # No expert has more rows than a block here, so only the sum of both is determined.
            assert row["per_expert_ns"] == pytest.approx(b + 16 * c, rel=1e-6)
            assert row["per_row_ns"] is None
            assert row["base_ns"] == pytest.approx(a, abs=1)
            assert row["r2_tokens"] < 0.9
        else:
            assert row["per_row_ns"] == pytest.approx(c, rel=1e-6)


def test_a_run_that_was_not_seen_is_predicted(found: Explanation, spare: Made) -> None:
    for row in found.scores:
        assert row["r2"] == pytest.approx(1, abs=1e-6)
        assert row["error_ratio"] < 1e-6
    sums = {(row["phase"], row["what"]): row for row in found.sums}
    measured = critical_of(spare)
    assert sums["all", "measured"]["critical_ns"] == measured
    assert sums["all", "predicted"]["critical_ns"] == pytest.approx(measured, rel=1e-6)
    assert sums["all", "perfect_balance"]["critical_error"] < -0.01
    assert found.cells["cells"] == found.cells["predicted"]


def critical_of(made: Made, phase: str | None = None) -> int:
    cells = [made.work[n : n + RANKS] for n in range(0, len(made.work), RANKS)]
    return sum(max(w["dur"] for w in cell) for cell in cells if phase in {None, cell[0]["phase"]})


def test_no_change_is_the_first_placement_with_the_same_tokens(
    found: Explanation, off: Made
) -> None:
    """Both arms serve the same requests here, so the first arm's own durations are the answer."""
    sums = {(row["phase"], row["what"]): row for row in found.sums}
    for phase in ("decode", "prefill"):
        expected = critical_of(off, phase)
        assert sums[phase, "no_change"]["critical_ns"] == pytest.approx(expected, rel=1e-6)
        assert sums[phase, "baseline"]["critical_ns"] == expected


def test_replicas_tax_decode_and_help_prefill(found: Explanation, off: Made, spare: Made) -> None:
    changes = {row["phase"]: row for row in found.tax}
    for phase, row in changes.items():
        reads = phase == "prefill"
        tokens = sum(
            len(fed)
            for label, fed in zip(off.served.labels, off.served.fed, strict=True)
            if bool(label["context_requests"]) == reads
        )
        expected = (critical_of(spare, phase) - critical_of(off, phase)) / tokens
        assert row["change_ns"] == pytest.approx(expected, rel=1e-6)
        assert row["change_ns"] == pytest.approx(row["experts_ns"] + row["rows_ns"], abs=1e-6)
        assert row["measured_after_ns"] - row["measured_before_ns"] == pytest.approx(expected)
    assert changes["decode"]["change_ns"] > 0 > changes["prefill"]["change_ns"]
    assert changes["decode"]["active_after"] > changes["decode"]["active_before"]
    assert found.break_even == pytest.approx(
        -changes["decode"]["change_ns"] / changes["prefill"]["change_ns"]
    )


def test_a_log_of_another_run_is_told_by_what_it_does_not_explain(
    off: Made, tmp_path: Path
) -> None:
    other = Made(tmp_path / "other", None, seed=2)
    shuffled = tmp_path / "routed.npz"
    random = np.random.default_rng(5)
    arrays: dict[str, Any] = {
        f"r{n}": random.permutation(route.reshape(-1)).reshape(route.shape) % 2
        for n, route in enumerate(off.routes)
    }
    np.savez(shuffled, **arrays)
    with pytest.raises(RoutingError, match="tokens; a prompt of"):
        explain(Inputs(off.inputs.trace, other.inputs.routed, off.inputs.run))
    with pytest.raises(RoutingError, match=r"step \d+ says|never ran"):
        explain(Inputs(off.inputs.trace, other.inputs.routed, other.inputs.run))
    weak = explain(
        Inputs(off.inputs.trace, shuffled, off.inputs.run), choices=Choices(experts=EXPERTS)
    )
    assert "weak_fit" in [finding.code for finding in weak.findings]
    assert "weak_fit" not in [finding.code for finding in explain(off.inputs).findings]


def test_runs_that_cannot_be_read_this_way_say_why(off: Made, tmp_path: Path) -> None:
    made = Made(tmp_path / "made", None)
    for options, says in (({"ep": "off"}, "expert parallelism"), ({"dp": 2}, "data-parallel")):
        made.record(None, **options)
        with pytest.raises(MissingDataError, match=says):
            explain(made.inputs)
    made.record([list(range(6))] * LAYERS)
    with pytest.raises(RoutingError, match="maps 2 layers and 6 experts"):
        explain(made.inputs)
    made.record([SPARE])
    with pytest.raises(RoutingError, match="maps 1 layers"):
        explain(made.inputs)
    with pytest.raises(MissingDataError, match="--block-m"):
        explain(off.inputs, choices=Choices({"w13": 1000, "w2": 100}))
    with pytest.raises(RoutingError, match="are engines of their own"):
        explain(Inputs(DP2 / "eplb_off.sqlite", off.inputs.routed, off.inputs.run))
    real = Inputs(*(GRAPHS / f"eplb_off.{end}" for end in ("sqlite", "routed.npz", "run.json")))
    with pytest.raises(RoutingError, match="MoE layers"):
        explain(off.inputs, real)


def test_maps_that_changed_outside_the_capture(tmp_path: Path) -> None:
    made = Made(tmp_path / "made", None)
    same = [list(range(EXPERTS))] * LAYERS
    made.record(same, before=[list(range(EXPERTS))[::-1]] * LAYERS)
    found = explain(made.inputs)
    assert [finding.code for finding in found.findings] == ["unseen_rearrangement"]
    # The last map holds throughout, so the costs are the right ones.
    assert all(row["r2"] == pytest.approx(1, abs=1e-9) for row in found.costs)


def test_each_step_has_the_map_that_held_in_it() -> None:
    """The real pair's ON arm: rearranged after its ninth step."""
    real = Inputs(*(GRAPHS / f"eplb_on.{end}" for end in ("sqlite", "routed.npz", "run.json")))
    arm = read_arm(real, Choices())
    steps = {
        bool(key[0]): sorted(part["step"].unique().to_list())
        for key, part in arm.launches.group_by("is_after")
    }
    assert steps == {False: list(range(9)), True: list(range(9, 14))}
    assert arm.history.changes


def test_a_roofline_follows_the_peaks_that_are_given(off: Made) -> None:
    shape = ModelShape(hidden=512, intermediate=1024, weight_bytes=2.0, experts=EXPERTS)
    given = roofline(off.inputs, shape, limits=Limits(1e12, 1e14))
    assert given.ridge_rows == 100
    assert (given.peaks.bandwidth_from, given.peaks.flops_from) == ("option", "option")
    for row in given.rows:
        launches = [w for w in off.work if (w["gemm"], w["phase"]) == (row["gemm"], row["phase"])]
        weights = 512 * 1024 * (2 if row["gemm"] == "w13" else 1)
        total = sum(w["dur"] for w in launches)
        read = sum(w["active"] for w in launches) * weights * 2
        limit = sum(
            max(w["active"] * weights * 2 / 1e12, w["rows"] * weights * 2 / 1e14) for w in launches
        )
        assert row["total_ns"] == total
        assert row["bytes_per_s"] == pytest.approx(read / total * 1e9)
        assert row["limit_ratio"] == pytest.approx(limit * 1e9 / total)
    # The builder's GPUs tell no bandwidth: the datasheet does.
    sheet = roofline(off.inputs, shape)
    assert "datasheet" in sheet.peaks.bandwidth_from
    assert (sheet.peaks.bytes_per_s, sheet.peaks.flops_per_s) == (3.35e12, 989.5e12)
    with pytest.raises(MissingDataError, match="--flops"):
        roofline(off.inputs, ModelShape(512, 1024, 4.0))


@pytest.mark.parametrize("steps", [3, 3000])
def test_rows_are_counted_alike_where_they_are_few_and_where_they_are_many(steps: int) -> None:
    """Few choices over many steps are sorted, many are tabled; both against a plain count."""
    import polars as pl

    from nsysmoe.analysis.routing.routed import count_rows
    from nsysmoe.routing import PlacementHistory
    from nsysmoe.routing.experts import placed

    random = Random(steps)
    rows = [
        (random.randrange(LAYERS), random.randrange(EXPERTS), random.randrange(steps), n)
        for n in range(400)
    ]
    choices = pl.DataFrame(rows, schema=["layer", "expert", "step", "row"], orient="row")
    placement = placed([SPARE] * LAYERS, RANKS)
    launches = pl.DataFrame({"step": range(steps), "is_after": True})
    found = count_rows(choices, launches, PlacementHistory(placement, placement))
    expected: Counter[tuple[int, int, int, int]] = Counter()
    for layer, expert, step, row in rows:
        replicas = [p for p, logical in enumerate(SPARE) if logical == expert]
        slot = replicas[(row * 2654435769 % 2**32) % len(replicas)]
        expected[step, layer, slot // (len(SPARE) // RANKS), slot] += 1
    assert {tuple(row[:4]): row[4] for row in found.rows()} == expected
