"""The command line: one file a command, each of which opens, asks once, and prints."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any

import click

from nsysmoe import __version__
from nsysmoe.cli.ending import Ending
from nsysmoe.cli.exits import DEFECT, INTERRUPTED
from nsysmoe.cli.speech import options, with_speech
from nsysmoe.errors import NsysmoeError

COMMANDS = (
    "capture",
    "compare",
    "report",
    "summary",
    "kernels",
    "collectives",
    "bound",
    "waits",
    "whatif",
    "stalls",
    "host",
    "imbalance",
    "phases",
    "advise",
    "routing",
    "placement",
    "replay",
    "watch",
    "size",
    "padding",
    "roofline",
    "timeline",
    "workload",
    "sweep",
    "correlate",
    "figures",
    "info",
    "sql",
    "views",
    "render",
    "cache",
    "doctor",
)
_DEBUG = "NSYSMOE_DEBUG"
_LONGEST = 1_500


class LazyGroup(click.Group):
    """Imports a command when it is asked for, and turns errors into one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the commands in the order of the documentation."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import the module of a command."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"nsysmoe.cli.{cmd_name}").command
        return with_speech(command)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the commands' summaries without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(SUMMARIES.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; end with one line, and a code that says why, where it cannot.

        The codes: ``cli.exits``, docs/command-line.md.
        """
        with Ending() as ending:
            try:
                found = super().invoke(ctx)
            except BaseException as error:
                # Libraries make errors of their own of an interrupt.
                raise (_ended(ending) if ending.heard else _told(error)) from error
            if ending.heard:
                raise _ended(ending)
            return found


SUMMARIES = {
    "capture": "Profiled runs of vLLM on this node, EPLB off and on.",
    "compare": "Two traces in, the paper's Table 1 out, and what it hides.",
    "report": "Everything about two arms on one page, with pictures.",
    "summary": "The metrics of Table 1 for one trace, by device.",
    "kernels": "Every kernel's launches and durations.",
    "collectives": "Communication: transfer, and waiting for the last rank.",
    "bound": "What bounds each phase: experts, transfer, or the host.",
    "waits": "Why ranks waited: experts, other kernels, or the host.",
    "whatif": "What it would have taken had some of it cost less.",
    "stalls": "What stopped the run: slow steps, compiled code, silences.",
    "host": "What launching costs, rank by rank, and what nsys adds.",
    "imbalance": "Balance of the experts across ranks, in time.",
    "phases": "Prefill, decode and mixed steps.",
    "advise": "Whether EPLB is worth turning on, and by how much.",
    "routing": "Routing logs: their balance, and what experts cost in time.",
    "placement": "Where experts should live, and what devices carry then.",
    "replay": "Real requests sent again, with their own timing.",
    "watch": "A server as it runs: balance, EPLB, tails, alerts.",
    "size": "What layouts and batch limits would give a workload.",
    "padding": "Padding tokens rerouted inside a model.",
    "roofline": "Which limit bounds the experts, and what to balance.",
    "timeline": "What ran in one step, on every rank.",
    "workload": "Sets of prompts: made, and scored for expected imbalance.",
    "sweep": "Sweeps over options of vLLM: plan, run, one table.",
    "correlate": "How performance goes with imbalance, with intervals.",
    "figures": "Figures 1 to 5 of the paper, from the table of a sweep.",
    "info": "What a trace is and holds.",
    "sql": "Ask the views anything, in SQL.",
    "views": "The views and columns that sql can ask.",
    "render": "A saved comparison in another format.",
    "cache": "Answers kept between calls: list, clear.",
    "doctor": "What is installed here, and which inputs can be read.",
}


def _ended(ending: Ending) -> click.exceptions.Exit:
    click.echo(ending.line(), err=True, nl=False)
    return click.exceptions.Exit(ending.status)


def _told(error: BaseException) -> BaseException:
    """Return what click ends the program by."""
    if isinstance(error, NsysmoeError):
        return _failure(str(error))
    if isinstance(error, KeyboardInterrupt):
        click.echo("Interrupted", err=True)
        return click.exceptions.Exit(INTERRUPTED)
    passed = (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError)
    if isinstance(error, passed) or not isinstance(error, Exception):
        return error
    if isinstance(error, OSError):
        return _failure(f"cannot write ({error.strerror}); choose another place")
    if os.environ.get(_DEBUG):
        return error
    return _failure(
        f"nsysmoe failed ({type(error).__name__}: {error}); this is a defect, please "
        f"report it with the output of {_DEBUG}=1 {' '.join(sys.argv[:2])} …",
        _DefectError,
    )


class _DefectError(click.ClickException):
    exit_code = DEFECT


def _failure(
    message: str, kind: type[click.ClickException] = click.ClickException
) -> click.ClickException:
    from nsysmoe.reports.escape import visible

    text = " ".join(visible(line) for line in message.splitlines())
    if len(text) > _LONGEST:
        # A name out of a file may be a megabyte; what is wrong stands first, the fix last.
        text = f"{text[: _LONGEST * 3 // 4]} … {text[-_LONGEST // 4 :]}"
    return kind(text)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="nsysmoe")
def main() -> None:
    """Answers from Nsight Systems traces of Mixture-of-Experts serving with vLLM.

    \b
    Example:
      nsysmoe compare off.sqlite on.sqlite
    """
    if sys.stderr is None:
        # Closed by the caller: what would have been said is not an error.
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
    if sys.stdout is None:
        raise click.ClickException("standard output is closed; name a file with -o")
    for stream in (sys.stdout, sys.stderr):
        # A terminal that lacks × or σ still gets the numbers.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


main.params += options()
