"""``nsysmoe capture``."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from nsysmoe.cli.exits import INTERRUPTED, REFUSED
from nsysmoe.cli.options import FILE
from nsysmoe.cli.speech import say

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nsysmoe.capture.outcome import Outcome
    from nsysmoe.capture.preflight import Check
    from nsysmoe.capture.run import Capture
    from nsysmoe.capture.spec import Spec

F = TypeVar("F", bound="Callable[..., Any]")

_POSITIVE = click.IntRange(min=1)


# Generic in newer versions of click only.
class _Pair(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """NAME=VALUE; the value is JSON where that is asked for, or else a text."""

    name = "pair"

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:  # noqa: ARG002
        return "KEY=JSON" if self._as_json else "NAME=VALUE"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        key, sign, text = str(value).partition("=")
        if not key or not sign:
            self.fail(f"{value!r} is not {self.get_metavar(None, None)}", param, ctx)  # type: ignore[arg-type]
        if self._as_json:
            try:
                json.loads(text)
            except ValueError:
                # A bare word is a text.
                text = json.dumps(text)
        return key, text


def _options(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


_layout_options = _options(
    click.option("--model", help="Name or folder of the model."),
    click.option(
        "--expert-parallel",
        type=_POSITIVE,
        help="GPUs that share the experts; alone: data parallel over all, tensor parallel 1.",
    ),
    click.option("--tensor-parallel", type=_POSITIVE, help="GPUs that share each matrix."),
    click.option("--data-parallel", type=_POSITIVE, help="Engines that share the experts."),
    click.option(
        "--eplb",
        "arms",
        type=click.Choice(["off", "on"]),
        multiple=True,
        help="An arm; give it twice for both, which then alternate.  [default: off and on]",
    ),
    click.option("--runs", type=_POSITIVE, default=5, show_default=True, help="Runs of each arm."),
    click.option(
        "-o", "--output", type=FILE, default=Path("runs"), show_default=True, help="The folder."
    ),
    click.option(
        "--mode",
        type=click.Choice(["offline", "server"]),
        default="offline",
        show_default=True,
        help="vLLM as a library in a script, or vllm serve under a load over HTTP.",
    ),
)

_workload_options = _options(
    click.option(
        "--prompts",
        type=FILE,
        help='JSON lines: {"prompt": …} or {"prompt_token_ids": […]}, and "max_tokens".  '
        "[default: random tokens]",
    ),
    click.option(
        "--num-prompts", type=_POSITIVE, default=32, show_default=True, help="Requests of a round."
    ),
    click.option(
        "--input-len", type=_POSITIVE, default=256, show_default=True, help="Tokens of a prompt."
    ),
    click.option(
        "--output-len", type=_POSITIVE, default=64, show_default=True, help="Tokens of an answer."
    ),
    click.option(
        "--vocabulary",
        type=click.IntRange(min=11),
        default=32000,
        show_default=True,
        help="Random token ids stay below it.",
    ),
    click.option("--seed", type=int, default=0, show_default=True, help="Of prompts and of vLLM."),
    click.option(
        "--warm-rounds",
        type=_POSITIVE,
        default=6,
        show_default=True,
        help="Unprofiled rounds before the measured one, at least; the last is the control.",
    ),
)

_engine_options = _options(
    click.option(
        "--max-num-seqs", type=_POSITIVE, default=32, show_default=True, help="Requests at once."
    ),
    click.option(
        "--max-num-batched-tokens",
        type=_POSITIVE,
        default=8192,
        show_default=True,
        help="Tokens of a step.",
    ),
    click.option("--max-model-len", type=_POSITIVE, help="Tokens of a request at most."),
    click.option("--dtype", default="auto", show_default=True, help="Type of the weights."),
    click.option("--load-format", default="auto", show_default=True, help="As vLLM takes it."),
    click.option("--skip-tokenizer-init", is_flag=True, help="For prompts of token ids alone."),
    click.option("--num-hidden-layers", type=_POSITIVE, help="Cut the model to so many layers."),
    click.option("--eager", is_flag=True, help="No CUDA graphs."),
    click.option("--all2all-backend", help="As vLLM takes it."),
    click.option(
        "--gpu-memory-utilization",
        type=click.FloatRange(0, 1, min_open=True),
        default=0.9,
        show_default=True,
        help="Share of a GPU's memory that vLLM may take.",
    ),
    click.option(
        "--engine-option",
        "more",
        type=_Pair(as_json=True),
        multiple=True,
        help="Any other option of vLLM, by the name of vllm.LLM's argument.",
    ),
    click.option(
        "--env",
        "environment",
        type=_Pair(as_json=False),
        multiple=True,
        help="A variable for vLLM.",
    ),
    click.option(
        "--multicast/--no-multicast",
        default=False,
        show_default=True,
        help="Whether NVLink multicast may be used; not on hosts that are shared.",
    ),
)

_eplb_options = _options(
    click.option(
        "--eplb-window",
        type=_POSITIVE,
        default=1000,
        show_default=True,
        help="Steps whose loads EPLB balances.",
    ),
    click.option(
        "--eplb-interval",
        type=_POSITIVE,
        default=3000,
        show_default=True,
        help="Steps from one rearrangement to the next.",
    ),
    click.option(
        "--redundant-experts",
        type=click.IntRange(min=0),
        default=0,
        show_default=True,
        help="Replicas.",
    ),
    click.option(
        "--eplb-async/--no-eplb-async",
        "is_async",
        default=None,
        help="Whether experts move beside the work.  [default: as this vLLM does]",
    ),
    click.option(
        "--eplb-communicator", help="What moves them.  [default: torch_nccl, if not async]"
    ),
    click.option("--eplb-log", is_flag=True, help="Log the balance of every step."),
    click.option(
        "--rearrange",
        type=click.Choice(["before", "inside", "any"]),
        default="before",
        show_default=True,
        help="Where experts are to be rearranged, by the measured part.",
    ),
    click.option(
        "--routed-experts/--no-routed-experts",
        default=None,
        help="Keep which experts each token chose.  [default: where vLLM returns them]",
    ),
)

_dummy_options = _options(
    click.option(
        "--dummy-weights-std",
        type=click.FloatRange(0, min_open=True),
        help="For experiments without weights: draw them normal, with this deviation.",
    ),
    click.option(
        "--router-skew",
        type=click.FloatRange(0),
        help="For experiments without weights: scale row e of n of each router by "
        "exp(-SKEW e/(n-1)).",
    ),
)

_how_options = _options(
    click.option("--nsys", default="nsys", show_default=True, help="The nsys to profile with."),
    click.option(
        "--python", default="python3", show_default=True, help="The interpreter that has vLLM."
    ),
    click.option("--vllm-version", help="Plan for it.  [default: the one that is installed]"),
    click.option(
        "--port",
        type=click.IntRange(1, 65535),
        default=8000,
        show_default=True,
        help="Of the server, or where data-parallel ranks meet.",
    ),
    click.option(
        "--start-timeout",
        type=click.FloatRange(0, min_open=True),
        default=900,
        show_default=True,
        help="Seconds until a server must answer.",
    ),
    click.option(
        "--run-timeout",
        type=click.FloatRange(0, min_open=True),
        default=1800,
        show_default=True,
        help="Seconds that one run may take.",
    ),
    click.option(
        "--end-timeout",
        type=click.FloatRange(0, min_open=True),
        default=10,
        show_default=True,
        help="Seconds that a program may take to end once it was asked to; then it is killed.",
    ),
    click.option(
        "--dry-run", is_flag=True, help="Print the plan as a shell script, and do nothing."
    ),
    click.option("--check", is_flag=True, help="Look whether everything is there, and do nothing."),
    click.option(
        "--verify",
        type=FILE,
        metavar="FOLDER",
        help="Verify the runs of a capture that was made elsewhere.",
    ),
    click.option(
        "--allow-code-loads",
        is_flag=True,
        help="Count runs into whose measured part code was loaded.",
    ),
    click.option(
        "--format",
        "format_",
        type=click.Choice(["text", "json"]),
        default="text",
        show_default=True,
        help="How --check, --verify and the end are printed.",
    ),
)


@click.command("capture")
@_layout_options
@_workload_options
@_engine_options
@_eplb_options
@_dummy_options
@_how_options
def command(
    output: Path, dry_run: bool, check: bool, verify: Path | None, format_: str, **given: Any
) -> None:
    """Profiled runs of vLLM on this GPU node, EPLB off and on, ready to compare.

    Each run is a folder with its trace and its record. The same command goes on where an earlier
    one ended; what it started is gone when it ends, however it ends.

    \b
    Example:
      nsysmoe capture --model mistralai/Mixtral-8x7B-v0.1 --expert-parallel 4 --runs 5 -o runs/
      nsysmoe compare runs/off runs/on
    """
    from nsysmoe.capture.probe import is_profiled

    if verify is not None:
        _verify(verify, format_, allow_code_loads=given["allow_code_loads"])
        return
    output = output.absolute()
    spec = _spec(given, is_dry=dry_run, is_outside=is_profiled(os.environ))
    if dry_run:
        from nsysmoe.capture.plan import script

        click.echo(script(spec, str(output)), nl=False)
        return
    facts = _checked(spec, output, format_, is_asked=check)
    if not check:
        _capture(spec, output, facts, format_)


def _verify(folder: Path, format_: str, *, allow_code_loads: bool) -> None:
    from nsysmoe.capture.outcome import verify_folder

    _end(verify_folder(folder, say, allow_code_loads=allow_code_loads), folder, format_)


def _capture(spec: Spec, output: Path, facts: Any, format_: str) -> None:
    from nsysmoe.capture.run import Capture, RunError
    from nsysmoe.capture.signals import Interrupted
    from nsysmoe.errors import CaptureError

    capture = Capture(spec, output, facts, say)
    try:
        outcome = capture.run()
    except Interrupted as error:
        click.echo(f"Interrupted ({error}): {_resumable(capture)}", err=True)
        raise click.exceptions.Exit(INTERRUPTED) from error
    except RunError as error:
        for line in error.log.splitlines():
            click.echo(f"  {_visible(line)}", err=True)
        raise CaptureError(f"{error}; {_resumable(capture)}") from error
    _end(outcome, output, format_)


def _resumable(capture: Capture) -> str:
    return f"{capture.progress()}; the same command goes on from there"


def _end(outcome: Outcome, folder: Path, format_: str) -> None:
    """Print what became of the runs; exit 1 where one does not count."""
    if format_ == "json":
        click.echo(json.dumps(outcome.to_dict(), indent=2))
    else:
        for result in outcome.results:
            reason = f": {result.reason}" if result.reason else ""
            click.echo(f"{result.status:10}  {result.folder}{_visible(reason)}")
        _print_checks(outcome.arms)
        click.echo(f"{outcome.complete} of {len(outcome.results)} runs count in {folder}")
    if not outcome.is_whole:
        raise click.exceptions.Exit(REFUSED)


def _checked(spec: Spec, output: Path, format_: str, *, is_asked: bool) -> Any:
    """Look at the machine; go on where nothing fails."""
    from nsysmoe.capture.preflight import judge
    from nsysmoe.capture.probe import probe
    from nsysmoe.errors import CaptureError

    facts = probe(spec, output)
    checks = judge(spec, facts)
    bad = [check for check in checks if check.status == "fail"]
    if is_asked and format_ == "json":
        click.echo(json.dumps([check.to_dict() for check in checks], indent=2))
    elif is_asked:
        _print_checks(checks)
    else:
        for check in checks:
            if check.status != "ok":
                say(check.line())
    if bad:
        raise CaptureError(f"nothing was started: {'; '.join(check.what for check in bad)}")
    return facts


def _spec(given: dict[str, Any], *, is_dry: bool, is_outside: bool) -> Spec:
    """Build the spec from the command line, asking only for what it does not say."""
    from nsysmoe.capture import spec as specs
    from nsysmoe.capture.engine import check

    if not given["model"]:
        raise click.UsageError("Missing option '--model'.")
    spec = specs.Spec(
        model=given["model"],
        vllm=given["vllm_version"] or _installed(given["python"]),
        layout=specs.layout_of(
            given["expert_parallel"], given["tensor_parallel"], given["data_parallel"]
        ),
        arms=tuple(dict.fromkeys(given["arms"])) or ("off", "on"),
        runs=given["runs"],
        mode=given["mode"],
        profile="outside" if is_outside else "nsys",
        workload=_workload(given),
        engine=specs.Engine(
            max_sequences=given["max_num_seqs"],
            max_step_tokens=given["max_num_batched_tokens"],
            max_model_tokens=given["max_model_len"],
            dtype=given["dtype"],
            load_format=given["load_format"],
            skip_tokenizer=given["skip_tokenizer_init"],
            layers=given["num_hidden_layers"],
            is_eager=given["eager"],
            all2all=given["all2all_backend"],
            memory_share=given["gpu_memory_utilization"],
            more=given["more"],
        ),
        balancing=specs.Balancing(
            given["eplb_window"],
            given["eplb_interval"],
            given["redundant_experts"],
            given["is_async"],
            given["eplb_communicator"],
            given["eplb_log"],
        ),
        dummy=specs.DummyWeights(given["dummy_weights_std"], given["router_skew"]),
        rearrange=given["rearrange"],
        routed_experts=given["routed_experts"],
        allow_code_loads=given["allow_code_loads"],
        multicast=given["multicast"],
        environment=given["environment"],
        nsys=given["nsys"],
        python=given["python"],
        export_json=is_dry or _exports_json(given["nsys"]),
        port=given["port"],
        start_timeout_s=given["start_timeout"],
        run_timeout_s=given["run_timeout"],
        end_timeout_s=given["end_timeout"],
    )
    check(spec)
    if is_outside and not is_dry and (len(spec.arms), spec.runs) != (1, 1):
        raise click.UsageError(
            "nsys is profiling already and makes one report: add --eplb off or --eplb on, "
            "and --runs 1"
        )
    return spec


def _workload(given: dict[str, Any]) -> Any:
    from nsysmoe.capture.prompts import workload

    return workload(
        given["prompts"],
        count=given["num_prompts"],
        input_tokens=given["input_len"],
        output_tokens=given["output_len"],
        vocabulary=given["vocabulary"],
        seed=given["seed"],
        warm_rounds=given["warm_rounds"],
    )


def _installed(python: str) -> str:
    from nsysmoe.capture.probe import vllm_version
    from nsysmoe.errors import CaptureError

    found = vllm_version(python)
    if found is None:
        raise CaptureError(
            f"{python} has no vLLM; name its interpreter with --python, or plan for a version "
            "with --vllm-version and --dry-run"
        )
    return found


def _exports_json(nsys: str) -> bool:
    from nsysmoe.capture.probe import exports_json

    return exports_json(nsys)


def _print_checks(checks: Sequence[Check]) -> None:
    for check in checks:
        click.echo(_visible(check.line()))


def _visible(text: str) -> str:
    from nsysmoe.reports.escape import visible

    return visible(text)
