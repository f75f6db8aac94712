"""``nsysmoe capture``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nsysmoe.cli import capturing
from nsysmoe.cli.capturing import POSITIVE
from nsysmoe.cli.options import FILE, grouped
from nsysmoe.cli.speech import say

if TYPE_CHECKING:
    from nsysmoe.capture.spec import Spec

_arm_options = grouped(
    click.option(
        "--eplb",
        "arms",
        type=click.Choice(["off", "on"]),
        multiple=True,
        help="An arm; give it twice for both, which then alternate.  [default: off and on]",
    ),
    click.option("--runs", type=POSITIVE, default=5, show_default=True, help="Runs of each arm."),
    click.option(
        "-o", "--output", type=FILE, default=Path("runs"), show_default=True, help="The folder."
    ),
)

_own_options = grouped(
    click.option(
        "--warm-rounds",
        type=POSITIVE,
        default=6,
        show_default=True,
        help="Unprofiled rounds before the measured one, at least; the last is the control.",
    ),
    capturing.rearrange_option("before", "by the measured part"),
    click.option(
        "--routed-experts/--no-routed-experts",
        default=None,
        help="Keep which experts each token chose.  [default: where vLLM returns them]",
    ),
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
)


@click.command("capture")
@capturing.layout_options
@_arm_options
@capturing.workload_options
@capturing.size_options
@capturing.engine_options
@capturing.eplb_options
@_own_options
@capturing.dummy_options
@capturing.how_options
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
    facts = capturing.checked(spec, output, format_, is_asked=check)
    if not check:
        capturing.make(spec, output, facts, format_)


def _verify(folder: Path, format_: str, *, allow_code_loads: bool) -> None:
    from nsysmoe.capture.outcome import verify_folder

    outcome = verify_folder(folder, say, allow_code_loads=allow_code_loads)
    capturing.end(outcome, folder, format_)


def _spec(given: dict[str, Any], *, is_dry: bool, is_outside: bool) -> Spec:
    """Build the spec from the command line."""
    from nsysmoe.capture.engine import check
    from nsysmoe.capture.spec import EPLB_ARMS

    names = tuple(dict.fromkeys(given["arms"])) or tuple(EPLB_ARMS)
    spec = capturing.base_spec(
        given,
        [EPLB_ARMS[name] for name in names],
        runs=given["runs"],
        profile="outside" if is_outside else "nsys",
        load=capturing.load(given),
        allow_code_loads=given["allow_code_loads"],
        export_json=is_dry or capturing.exports_json(given["nsys"]),
    )
    check(spec)
    if is_outside and not is_dry and (len(spec.arms), spec.runs) != (1, 1):
        raise click.UsageError(
            "nsys is profiling already and makes one report: add --eplb off or --eplb on, "
            "and --runs 1"
        )
    return spec
