"""``nsysmoe replay``."""

from __future__ import annotations

import math
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from nsysmoe.cli.options import FILE, Finite, Printer
from nsysmoe.cli.speech import speech
from nsysmoe.reports.formats import TEXT_FORMATS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_MEASURES = {"ttft": "ttft", "tpot": "tpot", "e2e": "e2e", "e2el": "e2e"}
_POSITIVE = Finite(min=0, min_open=True)
_COUNT = click.IntRange(min=1)
_SAY_EVERY_S = 1.0


# Generic in newer versions of click only.
class _Limit(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """MEASURE:MS, as vLLM's benchmark takes it."""

    name = "limit"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:  # noqa: ARG002
        return "ttft|tpot|e2el:MS"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, float]:
        name, _, text = str(value).partition(":")
        try:
            limit = float(text)
        except ValueError:
            limit = math.nan
        if name not in _MEASURES or not limit > 0:
            self.fail(f"{value!r} is not MEASURE:MS, such as ttft:200 or tpot:50", param, ctx)
        return _MEASURES[name], limit


@click.command("replay")
@click.argument("requests", metavar="REQUESTS", type=FILE)
@click.option("--url", required=True, help="The server, http://HOST:PORT.")
@click.option(
    "-o",
    "--output",
    "folder",
    type=FILE,
    required=True,
    help="Folder of the record; the same command goes on with one that was interrupted.",
)
@click.option(
    "--speed", type=_POSITIVE, default=1.0, show_default=True, help="Times the log's own speed."
)
@click.option("--max-concurrency", type=_COUNT, help="Requests under way at once.")
@click.option("--rate", type=_POSITIVE, help="Requests a second (Poisson), in place of the log's.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of --rate.")
@click.option("--model", help="The model's name at the server.  [default: the first it lists]")
@click.option("--output-tokens", type=_COUNT, help="Asked for where the log tells no length.")
@click.option("--tokenizer", help="Counts logged answers (ShareGPT): mixtral, whitespace, a file.")
@click.option("--stop-at-eos", is_flag=True, help="Let answers end before the log's length.")
@click.option(
    "--goodput",
    "limits",
    multiple=True,
    type=_Limit(),
    help="A limit that good requests meet; may be repeated.",
)
@click.option(
    "--timeout",
    type=_POSITIVE,
    default=600.0,
    show_default=True,
    help="Seconds from sending a request to its last token.",
)
@click.option(
    "--stall-timeout",
    type=_POSITIVE,
    default=120.0,
    show_default=True,
    help="Seconds without a byte.",
)
@click.option(
    "--give-up",
    type=_COUNT,
    default=100,
    show_default=True,
    help="Requests in a row that do not reach the server before sending stops.",
)
@click.option("--retry-failed", is_flag=True, help="Send again what ended with an error.")
@click.option("--key-variable", metavar="NAME", help="Variable that holds the server's key.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(TEXT_FORMATS),
    help="How to print what came of it.  [default: table]",
)
def command(requests: Path, folder: Path, format_: str | None, **given: Any) -> None:
    """Send a log of requests to an OpenAI-compatible server with its original timing.

    REQUESTS: JSON lines with a prompt (or prompt_token_ids, messages), max_tokens and arrival_s;
    ShareGPT, vLLM bench's files, OpenAI's batch files and gateways' logs are read too.

    \b
    Example:
      nsysmoe replay requests.jsonl --url http://127.0.0.1:8000 -o replay/
          --goodput ttft:200 --goodput tpot:50
    """
    from nsysmoe.analysis.experiments.traffic import replay
    from nsysmoe.reports.pages.experiments.traffic import traffic_page
    from nsysmoe.traffic.run import Options, check_url

    options = Options(
        url=check_url(given["url"]),
        speed=given["speed"],
        most_at_once=given["max_concurrency"],
        rate=given["rate"],
        seed=given["seed"],
        model=given["model"],
        output_tokens=given["output_tokens"],
        ignore_eos=not given["stop_at_eos"],
        timeout_s=given["timeout"],
        stall_s=given["stall_timeout"],
        give_up=given["give_up"],
        retry_failed=given["retry_failed"],
        key_variable=given["key_variable"],
    )
    with _progress() as progress:
        found = replay(
            requests,
            folder,
            options,
            limits_ms=dict(given["limits"]),
            tokenizer=given["tokenizer"],
            progress=progress,
        )
    Printer(format_, None).show(traffic_page(found))
    if found.requests["unsent"]:
        sys.exit(130 if found.sessions[-1].get("ended") == "interrupted" else 1)


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None] | None]:
    """Give what says how far it is, once a second; nothing in a pipe, or where nobody wants it."""
    if speech() == "quiet" or not sys.stderr.isatty():
        yield None
        return
    said = began = time.monotonic()

    def say(done: int, of: int) -> None:
        nonlocal said
        if time.monotonic() - said > _SAY_EVERY_S:
            said = time.monotonic()
            click.echo(f"\r{done:,} of {of:,} requests have ended", nl=False, err=True)

    try:
        yield say
    finally:
        if said > began:
            # The line that was written over and over makes room for the answer.
            click.echo("\r\x1b[K", nl=False, err=True)
