"""Options of vLLM and of making runs, and how that ends: what capture and sweep run share."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import click

from nsysmoe.cli.exits import INTERRUPTED, REFUSED
from nsysmoe.cli.options import FILE, Finite, grouped
from nsysmoe.cli.speech import say

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from nsysmoe.capture.outcome import Outcome
    from nsysmoe.capture.preflight import Check
    from nsysmoe.capture.run import Capture
    from nsysmoe.capture.spec import Arm, Engine, Spec, Workload
    from nsysmoe.cli.options import F

POSITIVE = click.IntRange(min=1)


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


layout_options = grouped(
    click.option("--model", help="Name or folder of the model."),
    click.option(
        "--expert-parallel",
        type=POSITIVE,
        help="GPUs that share the experts; alone: data parallel over all, tensor parallel 1.",
    ),
    click.option("--tensor-parallel", type=POSITIVE, help="GPUs that share each matrix."),
    click.option("--data-parallel", type=POSITIVE, help="Engines that share the experts."),
    click.option(
        "--mode",
        type=click.Choice(["offline", "server"]),
        default="offline",
        show_default=True,
        help="vLLM as a library in a script, or vllm serve under a load over HTTP.",
    ),
)

workload_options = grouped(
    click.option(
        "--prompts",
        type=FILE,
        help='JSON lines: {"prompt": …} or {"prompt_token_ids": […]}, and "max_tokens".  '
        "[default: random tokens]",
    ),
    click.option(
        "--num-prompts", type=POSITIVE, default=32, show_default=True, help="Requests of a round."
    ),
    click.option(
        "--input-len", type=POSITIVE, default=256, show_default=True, help="Tokens of a prompt."
    ),
    click.option(
        "--output-len", type=POSITIVE, default=64, show_default=True, help="Tokens of an answer."
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
        "--request-rate",
        type=Finite(0, min_open=True, or_infinite=True),
        default=float("inf"),
        show_default=True,
        help="Requests a second, arriving as a Poisson process; inf: all at once. For servers.",
    ),
    click.option(
        "--load",
        "client",
        type=click.Choice(["own", "bench"]),
        default="own",
        show_default=True,
        help="What sends them to a server: our client, or vllm bench serve.",
    ),
)

size_options = grouped(
    click.option(
        "--max-num-seqs", type=POSITIVE, default=32, show_default=True, help="Requests at once."
    ),
    click.option(
        "--max-num-batched-tokens",
        type=POSITIVE,
        default=8192,
        show_default=True,
        help="Tokens of a step.",
    ),
    click.option("--max-model-len", type=POSITIVE, help="Tokens of a request at most."),
    click.option("--all2all-backend", help="As vLLM takes it."),
)

engine_options = grouped(
    click.option("--dtype", default="auto", show_default=True, help="Type of the weights."),
    click.option("--load-format", default="auto", show_default=True, help="As vLLM takes it."),
    click.option("--skip-tokenizer-init", is_flag=True, help="For prompts of token ids alone."),
    click.option("--num-hidden-layers", type=POSITIVE, help="Cut the model to so many layers."),
    click.option("--eager", is_flag=True, help="No CUDA graphs."),
    click.option(
        "--gpu-memory-utilization",
        type=Finite(0, 1, min_open=True),
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

eplb_options = grouped(
    click.option(
        "--eplb-window",
        type=POSITIVE,
        default=1000,
        show_default=True,
        help="Steps whose loads EPLB balances.",
    ),
    click.option(
        "--eplb-interval",
        type=POSITIVE,
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
)

dummy_options = grouped(
    click.option(
        "--dummy-weights-std",
        type=Finite(0, min_open=True),
        help="For experiments without weights: draw them normal, with this deviation.",
    ),
    click.option(
        "--router-skew",
        type=Finite(0),
        help="For experiments without weights: scale row e of n of each router by "
        "exp(-SKEW e/(n-1)).",
    ),
)


def rearrange_option(default: str, when: str) -> Callable[[F], F]:
    """Return the option that says where experts are rearranged; ``when`` ends its help."""
    return click.option(
        "--rearrange",
        type=click.Choice(["before", "inside", "any"]),
        default=default,
        show_default=True,
        help=f"Where experts are to be rearranged, {when}.",
    )


how_options = grouped(
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
        type=Finite(0, min_open=True),
        default=900,
        show_default=True,
        help="Seconds until a server must answer.",
    ),
    click.option(
        "--run-timeout",
        type=Finite(0, min_open=True),
        default=1800,
        show_default=True,
        help="Seconds that one run may take.",
    ),
    click.option(
        "--end-timeout",
        type=Finite(0, min_open=True),
        default=10,
        show_default=True,
        help="Seconds that a program may take to end once it was asked to; then it is killed.",
    ),
    click.option(
        "--dry-run", is_flag=True, help="Print the plan as a shell script, and do nothing."
    ),
    click.option("--check", is_flag=True, help="Look whether everything is there, and do nothing."),
    click.option(
        "--format",
        "format_",
        type=click.Choice(["text", "json"]),
        default="text",
        show_default=True,
        help="How checks and the end are printed.",
    ),
)


def base_spec(given: dict[str, Any], arms: Sequence[Arm], **more: Any) -> Spec:
    """Build the spec from the options that are shared, asking only for what they do not say.

    Args:
        given: Values of the command line by their names here.
        arms: What is compared.
        more: Values of the spec that the command works out itself.
    """
    from nsysmoe.capture import spec as specs

    if not given["model"]:
        raise click.UsageError("Missing option '--model'.")
    values: dict[str, Any] = {
        "layout": layout(given),
        "workload": workload(given, given["prompts"]),
        "engine": _engine(given),
        "balancing": specs.Balancing(
            given["eplb_window"],
            given["eplb_interval"],
            given["redundant_experts"],
            given["is_async"],
            given["eplb_communicator"],
            given["eplb_log"],
        ),
        "dummy": specs.DummyWeights(given["dummy_weights_std"], given["router_skew"]),
        **more,
    }
    return specs.Spec(
        model=given["model"],
        vllm=given["vllm_version"] or _installed(given["python"]),
        arms=tuple(arms),
        mode=given["mode"],
        rearrange=given["rearrange"],
        routed_experts=given["routed_experts"],
        multicast=given["multicast"],
        environment=given["environment"],
        nsys=given["nsys"],
        python=given["python"],
        port=given["port"],
        start_timeout_s=given["start_timeout"],
        run_timeout_s=given["run_timeout"],
        end_timeout_s=given["end_timeout"],
        **values,
    )


def layout(given: dict[str, Any]) -> Any:
    """Return how ranks share the model."""
    from nsysmoe.capture.spec import layout_of

    return layout_of(given["expert_parallel"], given["tensor_parallel"], given["data_parallel"])


def load(given: dict[str, Any], rounds: int = 1, *, warms_steps: bool = True) -> Any:
    """Return how requests come, and what of them is measured."""
    from nsysmoe.capture.spec import Load

    rate = None if math.isinf(given["request_rate"]) else given["request_rate"]
    return Load(given["client"], rate, rounds, warms_steps)


def _engine(given: dict[str, Any]) -> Engine:
    from nsysmoe.capture.spec import Engine

    sizes = {
        "max_sequences": given.get("max_num_seqs"),
        "max_step_tokens": given.get("max_num_batched_tokens"),
        "max_model_tokens": given.get("max_model_len"),
        "all2all": given.get("all2all_backend"),
    }
    return Engine(
        **{name: value for name, value in sizes.items() if value is not None},
        dtype=given["dtype"],
        load_format=given["load_format"],
        skip_tokenizer=given["skip_tokenizer_init"],
        layers=given["num_hidden_layers"],
        is_eager=given["eager"],
        memory_share=given["gpu_memory_utilization"],
        more=given["more"],
    )


def workload(given: dict[str, Any], prompts: Path | None) -> Workload:
    """Return the requests: of a file, or random ones."""
    from nsysmoe.capture.prompts import workload as read

    return read(
        prompts,
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


def exports_json(nsys: str) -> bool:
    """Tell whether this nsys can export the payloads of ranges."""
    from nsysmoe.capture.probe import exports_json as ask

    return ask(nsys)


def checked(spec: Spec, output: Path, format_: str, *, is_asked: bool) -> Any:
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


def make(spec: Spec, output: Path, facts: Any, format_: str) -> None:
    """Make the runs; say how it ended."""
    from nsysmoe.capture.making import RunError
    from nsysmoe.capture.run import Capture
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
    end(outcome, output, format_)


def _resumable(capture: Capture) -> str:
    return f"{capture.progress()}; the same command goes on from there"


def end(outcome: Outcome, folder: Path, format_: str) -> None:
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


def _print_checks(checks: Sequence[Check]) -> None:
    for check in checks:
        click.echo(_visible(check.line()))


def _visible(text: str) -> str:
    from nsysmoe.reports.escape import visible

    return visible(text)
