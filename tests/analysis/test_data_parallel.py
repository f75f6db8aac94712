"""Routing of data-parallel engines: what each rank computed, on traces made from known work."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import polars as pl
import pytest

from fixtures.builder import TraceBuilder
from nsysmoe.analysis.placing.advise import advise
from nsysmoe.analysis.routing.routed import Choices, Inputs, RoutedArm, read_arm, write_captured
from nsysmoe.analysis.routing.routing_cost import explain
from nsysmoe.errors import MissingDataError, RoutingError
from nsysmoe.metrics.kernel_time.tiles import default_rows, row_blocks
from tests.conftest import ENGINES as MEETING
from tests.routing.engine import Engine, engine

LAYERS, EXPERTS, TOP_K, ENGINES = 2, 8, 2, 2
WIDTHS = {"w13": 2048, "w2": 512}
COSTS = {"w13": (10_000, 40_000, 300), "w2": (6_000, 20_000, 200)}
SPARE = [0, 1, 2, 3, 4, 0, 1, 5, 6, 7, 2, 5]  # experts 0, 1, 2 and 5 live twice
EMBED = "void vectorized_gather_kernel"
# When the first pass begins.
FIRST = 1000
# Passes at the end in which nobody has a request.
IDLE = 3


@dataclass(frozen=True)
class Layout:
    """How the run was made.

    Attributes:
        tensor: Ranks of an engine.
        map: Logical expert of each physical one.
        begins: The pass in which each engine's first step runs.
        is_eager: Whether no graph runs any pass, and nothing is padded.
        is_even: Whether engines pad to the largest without a graph, else small batches to a size
            captured, each for itself.
        gpus: Data-parallel rank on each group of GPUs.
        seeds: Of the requests of each engine.
    """

    tensor: int = 1
    map: tuple[int, ...] = tuple(range(EXPERTS))
    begins: tuple[int, ...] = (0, 2)
    is_eager: bool = False
    is_even: bool = False
    gpus: tuple[int, ...] = (0, 1)
    seeds: tuple[int, ...] = (1, 2)

    @property
    def ranks(self) -> int:
        return ENGINES * self.tensor


class Made:
    """Engines with requests of their own that meet in every pass; work is counted by loops."""

    def __init__(self, folder: Path, layout: Layout) -> None:
        self.layout = layout
        self.served = [self.engine(seed) for seed in layout.seeds]
        random = Random(9)
        self.routes = [
            [
                [[sorted(range(EXPERTS), key=lambda e: random.random() * (1 + e))[:TOP_K]
                  for _ in range(LAYERS)] for _ in range(prompt + output - 1)]
                for prompt, output in zip(served.prompts, served.outputs, strict=True)
            ]
            for served in self.served
        ]  # fmt: skip
        self.steps = [
            {begin + n: n for n, fed in enumerate(served.fed) if fed}
            for begin, served in zip(layout.begins, self.served, strict=True)
        ]
        # Engine 0 has nothing to do in one pass amid its steps.
        self.steps[0] = {at + (at >= 5): n for at, n in self.steps[0].items()}
        self.passes = 1 + max(at for steps in self.steps for at in steps)
        self.work: list[dict[str, Any]] = []
        self.idle_ns = 0
        folder.mkdir()
        self.inputs = Inputs(
            self.trace(folder / "trace.sqlite"), folder / "routing.npz", folder / "run.json"
        )
        flat = [route for routes in self.routes for route in routes]
        arrays: dict[str, Any] = {f"r{n}": np.array(route) for n, route in enumerate(flat)}
        np.savez(self.inputs.routed, **arrays)
        self.record()

    @staticmethod
    def engine(seed: int) -> Engine:
        few = engine(seed, 10, 4, 120, late=1)
        prompts, outputs = [9 * p for p in few.prompts], [8 + o for o in few.outputs]
        return Engine(prompts, outputs, 4, 500, few.arrivals).run()

    def record(self, workers: Any = None, *, has_ranks: bool = True, **more: Any) -> Inputs:
        state = None
        if self.layout.map != tuple(range(EXPERTS)):
            maps = [list(self.layout.map)] * LAYERS
            state = {"models": {"m": {"physical_to_logical_map": maps}}}
        requests = [
            {"prompt_tokens": p, "output_tokens": o, **({"rank": rank} if has_ranks else {})}
            for rank, served in enumerate(self.served)
            for p, o in zip(served.prompts, served.outputs, strict=True)
        ]
        arguments = {"ep": "on", "dp": ENGINES, "max_num_seqs": 4, "max_num_batched_tokens": 500}
        document = {
            "vllm": "0.26.0",
            "args": {**arguments, **more},
            "runs": [{"requests": requests}],
            "eplb_before": [state] * ENGINES,
            "eplb_after": [state] * ENGINES,
            **({"workers": workers} if workers else {}),
        }
        self.inputs.run.write_text(json.dumps(document), encoding="utf-8")
        return self.inputs

    def pid(self, rank: int) -> int:
        return 1000 * (rank + 1)

    def engine_on(self, rank: int) -> int:
        return self.layout.gpus[rank // self.layout.tensor]

    def trace(self, path: Path) -> Path:
        build = TraceBuilder()
        at = FIRST
        for number in range(self.passes + IDLE):
            at = self.one_pass(build, number, at)
        for rank in range(self.layout.ranks):
            # The step that finds nothing left to do runs nothing.
            build.range("execute_context_0(0)_generation_0(0)", at, 50, pid=self.pid(rank))
            build.gpu(rank).process(self.pid(rank), "python3")
            build.device(self.pid(rank), rank, rank)
        return build.write(path)

    def one_pass(self, build: TraceBuilder, number: int, at: int) -> int:
        steps = [steps.get(number) for steps in self.steps]
        fed = [[] if step is None else sorted(self.served[engine].fed[step])
               for engine, step in enumerate(steps)]  # fmt: skip
        reads = any(
            step is not None and self.served[engine].labels[step]["context_requests"]
            for engine, step in enumerate(steps)
        )
        in_graph = not reads and not self.layout.is_eager
        rows = self.rows(fed, in_graph=in_graph)
        self.begun = at
        for rank in range(self.layout.ranks):
            engine_ = self.engine_on(rank)
            step = steps[engine_]
            if step is not None:
                build.range(self.label(engine_, step), at, 900, pid=self.pid(rank))
            self.kernel(build, EMBED, rank, at + 1000, 50, graph=in_graph)
        start = at + 1100
        for layer in range(LAYERS):
            counts = self.counts(fed, layer)
            for gemm in ("w13", "w2"):
                slowest = 0
                for rank in range(self.layout.ranks):
                    found = self.launch(counts[rank], gemm, rows, sum(map(len, fed)))
                    blocks = found["blocks"]
                    self.kernel(build, "fused_moe_kernel", rank, start, found["dur"],
                                graph=in_graph, blocks=blocks)  # fmt: skip
                    slowest = max(slowest, found["dur"])
                    found["phase"] = "prefill" if reads else "decode"
                    self.note(found, number, rank, layer, has_tokens=any(fed))
                start += slowest + 100
        return start + 500

    def note(
        self, found: dict[str, Any], number: int, rank: int, layer: int, *, has_tokens: bool
    ) -> None:
        if has_tokens:
            self.work.append({**found, "pass": number, "rank": rank, "layer": layer})
        else:
            self.idle_ns += found["dur"]

    def label(self, engine_: int, step: int) -> str:
        label = self.served[engine_].labels[step]
        return (
            f"execute_context_{label['context_requests']}({label['context_tokens']})"
            f"_generation_{label['generation_requests']}({label['generation_tokens']})"
        )

    def kernel(
        self, build: TraceBuilder, name: str, rank: int, at: int, dur: int, *, graph: bool,
        blocks: int = 1,
    ) -> None:  # fmt: skip
        correlation = len(build.kernels) + 1
        build.kernel(name, at, dur, device=rank, pid=self.pid(rank), correlation=correlation,
                     grid=(blocks, 1, 1), graph_node=correlation if graph else None)  # fmt: skip
        # All of a pass is launched in its first microsecond, where its range is.
        build.call(self.begun + 10, 5, pid=self.pid(rank), correlation=correlation)

    def rows(self, fed: list[list[Any]], *, in_graph: bool) -> int:
        """Return the rows of a pass, padding counted."""
        # Without a request an engine feeds one token.
        each = [len(tokens) or 1 for tokens in fed]
        if in_graph:
            captured = next(size for size in (1, 2, 4, 8, 16) if size >= max(each))
            each = [captured] * ENGINES
        elif self.layout.is_even:
            each = [max(each)] * ENGINES
        elif not self.layout.is_eager:
            # Graphs are captured up to twice the requests that may run at once.
            each = [next((size for size in (1, 2, 4, 8) if size >= n), n) for n in each]
        self.shares = [-(-n // self.layout.tensor) for n in each]
        return self.layout.tensor * sum(self.shares)

    def counts(self, fed: list[list[tuple[int, int]]], layer: int) -> list[Counter[int]]:
        """Count rows of physical experts by loops; a replica by the row in its rank's share."""
        physical = self.layout.map
        held = len(physical) // self.layout.ranks
        counts: list[Counter[int]] = [Counter() for _ in range(self.layout.ranks)]
        for engine_, tokens in enumerate(fed):
            for row, (request, token) in enumerate(tokens):
                for expert in self.routes[engine_][request][token][layer]:
                    replicas = [p for p, logical in enumerate(physical) if logical == expert]
                    # Ranks of an engine share out its tokens, and route their share each.
                    place = row % self.shares[engine_]
                    slot = replicas[(place * 2654435769 % 2**32) % len(replicas)]
                    counts[slot // held][slot] += 1
        return counts

    def launch(self, counts: Counter[int], gemm: str, rows: int, tokens: int) -> dict[str, Any]:
        block = default_rows(rows)
        a, b, c = COSTS[gemm]
        padded = sum(-(-n // block) * block for n in counts.values())
        # What nobody wrote down takes its time as well.
        extra = 7_000 * (rows - tokens)
        return {
            "gemm": gemm, "rows": sum(counts.values()), "active": len(counts), "padded": padded,
            "block_m": block, "is_padded": rows > tokens,
            "dur": a + b * len(counts) + c * padded + extra,
            "blocks": row_blocks(rows, TOP_K, len(self.layout.map), block)
            * -(-WIDTHS[gemm] // (64 if rows <= 64 else 128)),
        }  # fmt: skip


COLUMNS = ["step", "rank", "layer", "gemm", "phase", "rows", "active", "padded_rows", "block_m",
           "dur_ns", "is_padded"]  # fmt: skip


def expected(made: Made) -> list[tuple[Any, ...]]:
    keys = ["pass", "rank", "layer", "gemm", "phase", "rows", "active", "padded", "block_m",
            "dur", "is_padded"]  # fmt: skip
    return sorted(tuple(row[key] for key in keys) for row in made.work)


def there(arm: RoutedArm) -> list[tuple[Any, ...]]:
    return sorted(arm.launches.select(COLUMNS).rows())


def codes(arm: RoutedArm) -> list[str]:
    return [finding.code for finding in arm.findings]


CHOICES = Choices(experts=EXPERTS)


@pytest.mark.parametrize(
    "layout",
    [
        Layout(),
        Layout(map=tuple(SPARE)),
        Layout(map=(7, 6, 5, 4, 3, 2, 1, 0)),
        Layout(tensor=2),
        Layout(tensor=2, map=tuple(SPARE)),
        Layout(is_even=True),
        Layout(is_eager=True),
        Layout(is_eager=True, tensor=2),
        # The engine of rank 0 runs on the second GPU: steps tell.
        Layout(gpus=(1, 0)),
        Layout(begins=(2, 0)),
    ],
    ids=[
        "plain",
        "replicas",
        "reversed",
        "tensor",
        "tensor replicas",
        "even",
        "eager",
        "eager tensor",
        "crossed",
        "late",
    ],
)
def test_work_is_of_the_tokens_of_all_engines(layout: Layout, tmp_path: Path) -> None:
    made = Made(tmp_path / "made", layout)
    arm = read_arm(made.inputs, CHOICES)
    assert there(arm) == expected(made)
    assert arm.ranks == layout.ranks
    wanted = ["unrouted_passes", "padded_batches"]
    assert codes(arm) == [*wanted, *(["replica_choice"] if len(layout.map) > EXPERTS else [])]
    dummies = arm.findings[0].evidence
    assert dummies["passes"] == IDLE
    assert dummies["launches"] == IDLE * LAYERS * 2 * layout.ranks
    whole = made.idle_ns + sum(row["dur"] for row in made.work)
    assert dummies["time_ratio"] == pytest.approx(made.idle_ns / whole)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("made") / "plain", Layout())


def test_costs_are_fitted_without_what_nobody_wrote_down(plain: Made, tmp_path: Path) -> None:
    found = explain(plain.inputs, choices=CHOICES)
    for row in found.costs:
        _, b, c = COSTS[row["gemm"]]
        assert row["r2"] == pytest.approx(1, abs=1e-9)
        if row["per_expert_ns"] and row["per_row_ns"]:
            assert row["per_expert_ns"] == pytest.approx(b)
            assert row["per_row_ns"] == pytest.approx(c)
    moved = Made(tmp_path / "moved", Layout(map=(0, 4, 2, 6, 1, 5, 3, 7)))
    judged = explain(plain.inputs, moved.inputs, CHOICES)
    assert {(row["gemm"], row["phase"]) for row in judged.scores} == {
        (gemm, phase) for gemm in COSTS for phase in ("decode", "prefill")
    }
    assert all(row["error_ratio"] < 1e-6 for row in judged.scores)


def test_advice_counts_passes_with_requests(plain: Made) -> None:
    found = advise(plain.inputs.routed, trace=plain.inputs.trace)
    assert (found.shape["gpus"], found.shape["unit"]) == (2, "step")
    assert found.shape["steps"] == len({row["pass"] for row in plain.work})
    cells: dict[tuple[int, int], list[int]] = {}
    for row in plain.work:
        if row["gemm"] == "w13":
            cells.setdefault((row["pass"], row["layer"]), []).append(row["rows"])
    now = next(row for row in found.loads if row["what"] == "now")
    assert now["critical"] == sum(max(each) for each in cells.values())
    times = {(row["phase"], row["what"]): row for row in found.times}
    cells_ = [plain.work[n : n + 2] for n in range(0, len(plain.work), 2)]
    decode = [cell for cell in cells_ if cell[0]["phase"] == "decode"]
    measured = sum(max(row["dur"] for row in cell) for cell in decode)
    assert times["decode", "measured"]["critical_ns"] == measured


def workers(made: Made, engines: list[int], parts: list[int | None]) -> list[dict[str, Any]]:
    return [
        {"pid": made.pid(rank), "data_parallel_rank": engine_, "expert_parallel_rank": part}
        for rank, (engine_, part) in enumerate(zip(engines, parts, strict=True))
    ]


def test_a_record_that_contradicts_the_processes_is_told(plain: Made, tmp_path: Path) -> None:
    for layout, taken in ((Layout(), "the one way that"), (Layout(seeds=(1, 1)), "order of GPUs")):
        made = Made(tmp_path / taken.replace(" ", ""), layout)
        made.record(workers(made, [0, 0], [None, None]))
        arm = read_arm(made.inputs, CHOICES)
        told = next(finding for finding in arm.findings if finding.code == "workers_differ")
        assert taken in told.message
        assert there(arm) == expected(made)
    assert "workers_differ" not in codes(read_arm(plain.inputs, CHOICES))


def test_the_record_tells_engines_that_steps_do_not(tmp_path: Path) -> None:
    """Both engines serve prompts of the same lengths, one behind the other."""
    made = Made(tmp_path / "made", Layout(seeds=(1, 1)))
    arm = read_arm(made.inputs, CHOICES)
    assert "engines_by_order" in codes(arm)
    assert there(arm) == expected(made)
    made.record(workers(made, [0, 1], [None, None]))
    arm = read_arm(made.inputs, CHOICES)
    assert "engines_by_order" not in codes(arm)
    assert there(arm) == expected(made)
    made.record(workers(made, [1, 0], [None, None]))
    crossed = read_arm(made.inputs, CHOICES)
    assert there(crossed) != expected(made)
    other = Made(tmp_path / "other", Layout(seeds=(1, 1), gpus=(1, 0)))
    other.record(workers(other, [1, 0], [None, None]))
    assert there(read_arm(other.inputs, CHOICES)) == expected(other)


def test_the_record_tells_who_holds_which_experts(plain: Made, tmp_path: Path) -> None:
    made = Made(tmp_path / "made", Layout())
    made.record(workers(made, [0, 1], [1, 0]))
    arm = read_arm(made.inputs, CHOICES)
    rows = {(row["pass"], row["layer"], row["gemm"], row["rank"]): row["rows"]
            for row in plain.work}  # fmt: skip
    found = arm.launches.join(
        read_arm(plain.inputs, CHOICES).launches.select("kernel_id", pl.col("rank").alias("gpu")),
        on="kernel_id",
    )
    assert found.filter(pl.col("rank") == pl.col("gpu")).is_empty()
    for number, layer, gemm, rank, count in found.select(
        "step", "layer", "gemm", "rank", "rows"
    ).rows():
        assert count == rows[number, layer, gemm, rank]


def test_routing_of_a_capture_has_the_pass_of_each_token(tmp_path: Path) -> None:
    made = Made(tmp_path / "made", Layout())
    written = write_captured(tmp_path / "made", "off/run-1")
    assert written is not None
    rows = pl.read_parquet(written)
    assert rows["step"].null_count() == 0
    found = Counter(rows.filter(k=0, layer=0)["step"].to_list())
    for number in range(made.passes):
        tokens = sum(
            len(served.fed[steps[number]])
            for steps, served in zip(made.steps, made.served, strict=True)
            if number in steps
        )
        assert found[number] == tokens


def test_what_cannot_be_told_is_said(tmp_path: Path) -> None:
    made = Made(tmp_path / "made", Layout())
    with pytest.raises(MissingDataError, match="which data-parallel rank served each"):
        read_arm(made.record(has_ranks=False), CHOICES)
    with pytest.raises(RoutingError, match="are engines of their own"):
        read_arm(made.record(dp=1), CHOICES)
    with pytest.raises(RoutingError, match="data-parallel rank 0: step"):
        read_arm(made.record(workers(made, [1, 0], [None, None])), CHOICES)
    with pytest.raises(MissingDataError, match="give --block-m"):
        read_arm(made.record(), replace(CHOICES, widths={"w13": 1000, "w2": 10}))


class Anonymous(Made):
    """Has no kernel that runs once in each pass."""

    def kernel(self, build: TraceBuilder, name: str, *at: Any, **more: Any) -> None:
        if name != EMBED:
            super().kernel(build, name, *at, **more)


class Torn(Made):
    """Is recorded on the second rank from the second pass on; its engine idles in the first."""

    def kernel(self, build: TraceBuilder, name: str, rank: int, *at: Any, **more: Any) -> None:
        if rank == 0 or self.begun > FIRST:
            super().kernel(build, name, rank, *at, **more)


def test_passes_that_cannot_be_matched_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="runs once in each forward pass"):
        read_arm(Anonymous(tmp_path / "anonymous", Layout()).inputs, CHOICES)
    with pytest.raises(RoutingError, match="begins on them with different passes"):
        read_arm(Torn(tmp_path / "torn", Layout()).inputs, CHOICES)


class Elsewhere(Made):
    """Has grids of other shapes in passes with prompts."""

    def launch(self, counts: Counter[int], gemm: str, rows: int, tokens: int) -> dict[str, Any]:
        found = super().launch(counts, gemm, rows, tokens)
        return {**found, "blocks": found["blocks"] * (3 if rows > 32 else 1)}


def test_grids_that_do_not_follow_from_the_tokens_are_said(tmp_path: Path) -> None:
    arm = read_arm(Elsewhere(tmp_path / "made", Layout()).inputs, CHOICES)
    assert "grids_differ" in codes(arm)


def test_two_real_engines() -> None:
    """The first fourteen passes of a run: prompts of 256 tokens, one, then fifteen an engine."""
    real = Inputs(*(MEETING / f"eplb_off.{end}" for end in ("sqlite", "routed.npz", "run.json")))
    arm = read_arm(real, Choices())
    assert codes(arm) == ["partial_run"]
    with np.load(real.routed) as arrays:
        routes = [arrays[f"r{n}"].tolist() for n in range(32)]
    rows: Counter[tuple[int, int, int]] = Counter()
    for engine_ in range(2):
        first, *others = range(16 * engine_, 16 * engine_ + 16)
        fed = [[(first, token) for token in range(256)], [(first, 256)]]
        fed.append([(first, 257), *((one, token) for one in others for token in range(256))])
        fed += [[(first, 255 + n), *((one, 253 + n) for one in others)] for n in range(3, 14)]
        for number, tokens in enumerate(fed):
            for request, token in tokens:
                for layer, experts in enumerate(routes[request][token]):
                    for expert in experts:
                        # Of eight experts four live on each GPU.
                        rows[number, layer, expert // 4] += 1
    found = arm.launches.select("step", "layer", "rank", "rows").rows()
    assert len(found) == 448
    assert all(count == rows[number, layer, rank] for number, layer, rank, count in found)
    costs = {(row["phase"], row["gemm"]): row for row in explain(real).costs}
    assert costs["decode", "w13"]["r2"] > 0.99
    assert costs["decode", "w13"]["r2_tokens"] < 0.5
