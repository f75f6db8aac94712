"""From a spec to the programs of every run, purely: their arguments, variables and order."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsysmoe.capture import engine
from nsysmoe.capture.spec import EPLB_ARMS
from nsysmoe.capture.steps import batches, plan_rounds
from nsysmoe.capture.versions import supported
from nsysmoe.errors import CaptureError

if TYPE_CHECKING:
    from nsysmoe.capture.spec import Arm, Load, Spec
    from nsysmoe.capture.steps import Rounds

NODE = Path(__file__).parent / "node"
# Where a run is made before it is whole; no folder of an arm, which comparisons read.
WORK = ".work"
FAILED = "failed"
# Ports from one set of GPUs to the next: data-parallel ranks take some after the first.
_PORTS_A_SET = 50
# Also the name of a folder.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._=,+-]{0,150}")

_PROFILE = (
    "--trace=cuda,nvtx",
    # With sampling on, nsys stores the binaries that it meets: gigabytes.
    "--sample=none",
    "--cpuctxsw=none",
    "--trace-fork-before-exec=true",
    "--cuda-graph-trace=node",
    "--capture-range=cudaProfilerApi",
    "--capture-range-end=stop",
    "--force-overwrite=true",
)
# What nsys has to know.
NSYS_OPTIONS = tuple(option.partition("=")[0] for option in _PROFILE)


@dataclass(frozen=True)
class Command:
    """One program with its arguments and the variables that are set for it."""

    argv: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()

    def shell(self) -> str:
        """Return a line of a shell."""
        return " ".join(filter(None, [self.variables(), *map(shlex.quote, self.argv)]))

    def variables(self) -> str:
        """Return the variables as they stand before a command."""
        return " ".join(f"{name}={shlex.quote(value)}" for name, value in self.environment)


@dataclass(frozen=True)
class Slot:
    """Where a run is made: one of the places that hold a run each at the same time.

    Attributes:
        gpus: By the driver's numbers; empty for those that are visible.
        port: Of the server, or where data-parallel ranks meet.
    """

    gpus: tuple[str, ...]
    port: int


@dataclass(frozen=True)
class RunPlan:
    """One run.

    Attributes:
        arm: What is measured.
        number: From 1, within its arm.
        folder: Where it comes to be, relative to the capture's folder.
        work: Where it is made.
        gpus: On which; empty for those that are visible.
        engine: vLLM, under nsys where that is started here.
        ranks: What ``engine`` starts for each data-parallel rank.
        load: The load on a server.
        export: From the report to the database.
    """

    arm: Arm
    number: int
    folder: str
    work: str
    gpus: tuple[str, ...]
    engine: Command
    ranks: tuple[Command, ...] = ()
    load: Command | None = None
    export: Command | None = None

    @property
    def name(self) -> str:
        """The run in one word."""
        return f"{self.arm.name}-run-{self.number}"


def slots(spec: Spec) -> tuple[Slot, ...]:
    """Return where runs are made, each beside the others."""
    sets = spec.gpu_sets or ((),)
    return tuple(Slot(gpus, spec.port + place * _PORTS_A_SET) for place, gpus in enumerate(sets))


def plan(spec: Spec, root: str) -> tuple[RunPlan, ...]:
    """Plan every run in the order of execution: arms alternate, so that drift hits all alike.

    Args:
        spec: What to capture.
        root: The capture's folder.

    Raises:
        CaptureError: This version cannot honour the spec.
    """
    engine.check(spec)
    _check_names(spec)
    rounds = {arm: plan_rounds(spec.of(arm)) for arm in spec.arms}
    order = [(arm, number) for number in range(1, spec.runs + 1) for arm in spec.arms]
    places = slots(spec)
    return tuple(
        _run(spec.of(arm), rounds[arm], arm, number, root, places[index % len(places)])
        for index, (arm, number) in enumerate(order)
    )


def placed(spec: Spec, run: RunPlan, root: str, slot: Slot) -> RunPlan:
    """Return a planned run for the place that has come free."""
    own = spec.of(run.arm)
    return _run(own, plan_rounds(own), run.arm, run.number, root, slot)


def _check_names(spec: Spec) -> None:
    names = [arm.name for arm in spec.arms]
    for name in names:
        if not _NAME.fullmatch(name) or name == FAILED:
            raise CaptureError(f"{name!r} cannot name an arm: it is to name a folder, too")
    if len(set(names)) < len(names):
        raise CaptureError("two arms have one name; their runs would share a folder")


def script(spec: Spec, root: str) -> str:
    """Return the plan as a script that a person could run by hand."""
    blocks = [_block(run, root, spec) for run in plan(spec, root)]
    head = f"#!/bin/sh\n# nsysmoe capture of {shlex.quote(spec.model)}, vLLM {spec.vllm}\nset -eu\n"
    return head + "".join(blocks)


def _block(run: RunPlan, root: str, spec: Spec) -> str:
    work, folder = f"{root}/{run.work}", f"{root}/{run.folder}"
    lines = [f"\n# {_title(run.arm)}, run {run.number} of {spec.runs}", f"mkdir -p {_q(work)}"]
    if run.load is None:
        lines.append(f"{run.engine.shell()} >{_q(f'{work}/engine.log')} 2>&1")
    else:
        lines += [
            f"{run.engine.shell()} >{_q(f'{work}/engine.log')} 2>&1 &",
            "server=$!",
            run.load.shell(),
            "kill -INT $server; wait $server || true",
        ]
    lines += [f"# starts {rank.variables()} … {rank.argv[-1]}" for rank in run.ranks]
    if run.export is not None:
        lines.append(run.export.shell())
    lines.append(f"mkdir -p {_q(f'{root}/{run.arm.name}')} && mv {_q(work)} {_q(folder)}")
    return "\n".join(lines) + "\n"


def _title(arm: Arm) -> str:
    return f"EPLB {arm.name}" if EPLB_ARMS.get(arm.name) == arm else arm.name


def _q(text: str) -> str:
    return shlex.quote(text)


def _run(  # noqa: PLR0913, PLR0917 - a run is all of these
    spec: Spec, rounds: Rounds, arm: Arm, number: int, root: str, slot: Slot
) -> RunPlan:
    """Plan one run of an arm, by the spec of that arm."""
    spec = replace(spec, port=slot.port)
    name = f"{arm.name}-run-{number}"
    work = f"{WORK}/{name}"
    output = f"{root}/{work}"
    is_offline = spec.mode == "offline"
    program = _worker(spec, rounds, arm, output) if is_offline else _server(spec, arm)
    nsys = _nsys(spec, output) if spec.profile == "nsys" else ()
    shown = {"CUDA_VISIBLE_DEVICES": ",".join(slot.gpus)} if slot.gpus else {}
    variables = tuple(sorted({**engine.environment(spec), **shown}.items()))
    return RunPlan(
        arm=arm,
        number=number,
        folder=f"{arm.name}/run-{number}",
        work=work,
        gpus=slot.gpus,
        engine=Command((*nsys, *program), variables),
        ranks=_ranks(spec, program) if is_offline else (),
        load=None if is_offline else _load(spec, rounds, arm, output),
        export=_export(spec, output) if spec.profile == "nsys" else None,
    )


def _nsys(spec: Spec, output: str) -> tuple[str, ...]:
    return (spec.nsys, "profile", *_PROFILE, f"--output={output}/trace")


def _export(spec: Spec, output: str) -> Command:
    json_ = ("--include-json=true",) if spec.export_json else ()
    return Command(
        (spec.nsys, "export", "--type=sqlite", "--force-overwrite=true", *json_,
         f"--output={output}/trace.sqlite", f"{output}/trace.nsys-rep")
    )  # fmt: skip


def _worker(spec: Spec, rounds: Rounds, arm: Arm, output: str) -> tuple[str, ...]:
    """Return the script that runs vLLM as a library."""
    found = [spec.python, str(NODE / "worker.py"), f"--output={output}"]
    found.append(f"--engine={_json(engine.options(spec, arm))}")
    found += _requests(spec, rounds, arm)
    found += _before(spec, arm)
    if spec.profile != "none" and not supported(spec.vllm).has("profiler_config"):
        found.append("--profile=extension")
    if spec.layout.data > 1:
        found += [f"--data-parallel={spec.layout.data}", f"--port={spec.port}"]
    return tuple(found)


def _before(spec: Spec, arm: Arm) -> list[str]:
    """Return what is done to an engine before requests come."""
    found = [] if spec.load.warms_steps else ["--no-warm-steps"]
    if arm.is_balanced and spec.rearrange != "any":
        found.append(f"--rearrange={spec.rearrange}")
    if spec.dummy.deviation is not None:
        found.append(f"--dummy-weights-std={spec.dummy.deviation}")
    if spec.dummy.router_skew is not None:
        found.append(f"--router-skew={spec.dummy.router_skew}")
    return found


def _ranks(spec: Spec, worker: tuple[str, ...]) -> tuple[Command, ...]:
    if spec.layout.data == 1:
        return ()
    size = spec.layout.data
    return tuple(
        Command(
            (*worker, f"--rank={rank}"),
            (
                ("VLLM_DP_RANK", str(rank)),
                ("VLLM_DP_RANK_LOCAL", str(rank)),
                ("VLLM_DP_SIZE", str(size)),
                ("VLLM_DP_MASTER_IP", "127.0.0.1"),
                ("VLLM_DP_MASTER_PORT", str(spec.port)),
            ),
        )
        for rank in range(size)
    )


def _server(spec: Spec, arm: Arm) -> tuple[str, ...]:
    found = dict(engine.options(spec, arm))
    model = found.pop("model")
    program = (spec.python, str(NODE / "serve.py"), "serve", model)
    here = ("--host=127.0.0.1", f"--port={spec.port}")
    return (*program, *here, *(flag for key, value in found.items() for flag in _flag(key, value)))


def _flag(key: str, value: Any) -> tuple[str, ...]:
    name = key.replace("_", "-")
    if isinstance(value, bool):
        return (f"--{name}",) if value else (f"--no-{name}",)
    return (f"--{name}={value if isinstance(value, str | int | float) else _json(value)}",)


def _load(spec: Spec, rounds: Rounds, arm: Arm, output: str) -> Command:
    return Command(
        (
            spec.python, str(NODE / "load.py"), f"--output={output}",
            f"--url=http://127.0.0.1:{spec.port}", f"--model={spec.model}",
            f"--start-timeout={spec.start_timeout_s:g}", *_how(spec.load),
            *_engine_of(spec, arm), *_before(spec, arm), *_requests(spec, rounds, arm),
        )
    )  # fmt: skip


def _engine_of(spec: Spec, arm: Arm) -> list[str]:
    """Return what the load has to know of the server."""
    found = [
        f"--max-step-tokens={spec.engine.max_step_tokens}",
        f"--max-sequences={spec.engine.max_sequences}",
    ]
    return [*found, "--balanced"] if arm.is_balanced else found


def _how(load: Load) -> list[str]:
    rate = [] if load.rate is None else [f"--request-rate={load.rate:g}"]
    return rate if load.client == "own" else [*rate, f"--client={load.client}"]


def _requests(spec: Spec, rounds: Rounds, arm: Arm) -> list[str]:
    """Return the options that both scripts share: requests, rounds, and what to write down."""
    workload = spec.workload
    found = (
        [f"--prompts={workload.prompts_file}"]
        if workload.prompts_file
        else [
            f"--num-prompts={workload.count}",
            f"--input-len={workload.input_tokens}",
            f"--vocabulary={workload.vocabulary}",
        ]
    )
    return [
        *found,
        f"--output-len={workload.output_tokens}",
        f"--seed={workload.seed}",
        f"--sweep={','.join(map(str, batches(spec)))}",
        *([f"--settle={rounds.settle}"] if rounds.settle else []),
        f"--unprofiled-rounds={rounds.unprofiled}",
        *([f"--measured-rounds={spec.load.rounds}"] if spec.profile == "none" else []),
        f"--record={_json(_record(spec, arm))}",
    ]


def _record(spec: Spec, arm: Arm) -> dict[str, Any]:
    """Return what run.json says of the options, under the names that readers of it know."""
    balancing = spec.balancing
    found = {
        "mode": spec.mode,
        "model": spec.model,
        "tp": spec.layout.tensor,
        "dp": spec.layout.data,
        "ep": "on" if arm.is_expert_parallel else "off",
        "eplb": "on" if arm.is_balanced else "off",
        "max_num_seqs": spec.engine.max_sequences,
        "max_num_batched_tokens": spec.engine.max_step_tokens,
        "eager": spec.engine.is_eager,
        "seed": spec.workload.seed,
    }
    if arm.is_balanced:
        found |= {"eplb_redundant": balancing.redundant, "eplb_interval": balancing.interval}
    if spec.load.rate is not None:
        found["request_rate"] = spec.load.rate
    if spec.load.client != "own":
        found["load"] = spec.load.client
    more = {key: json.loads(value) for key, value in arm.more}
    return {**found, **_settings(arm), **more, **dict(arm.labels)}


def _settings(arm: Arm) -> dict[str, Any]:
    """Return what the arm alone sets, by vLLM's names, and readers know only from there."""
    own = {"max_model_len": arm.max_model_tokens, "all2all_backend": arm.all2all}
    return {key: value for key, value in own.items() if value is not None}


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
