"""``nsysmoe padding``."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

import click

from nsysmoe.cli.options import FILE, output_options
from nsysmoe.cli.progress import working

if TYPE_CHECKING:
    from pathlib import Path

    from nsysmoe.cli.options import Printer

_COUNT = click.IntRange(min=1)


@click.group("padding")
def command() -> None:
    """Padding tokens sent to the least used experts inside a model: balance, time, outputs.

    \b
    Example:
      nsysmoe padding run --model random:olmoe-1b-7b --layers 2 --prompts prompts.jsonl --reroute
          -o padding
      nsysmoe padding report padding -o padding.html

    `run` writes a folder; `report` has --format and -o, --output.
    """


@command.command("run")
@click.option(
    "--model",
    required=True,
    metavar="PATH|random:NAME",
    help="Folder of a Hugging Face model (Qwen3-MoE, Mixtral, OLMoE), or random weights in the "
    "shape of qwen3-30b-a3b, mixtral-8x7b, olmoe-1b-7b, or of a config.json.",
)
@click.option("--layers", type=_COUNT, help="Only the first layers.  [default: all]")
@click.option(
    "--batches",
    default="8x50,16x20,32x10,64x5",
    show_default=True,
    help="Prompts of a batch x batches.",
)
@click.option("--sorted", "sorts", is_flag=True, help="Measure prompts sorted by length too.")
@click.option("--reroute", is_flag=True, help="Measure with padding rerouted too.")
@click.option("--prompts", type=FILE, help="JSON lines with `prompt`, ShareGPT, or Parquet.")
@click.option(
    "--eval",
    "questions",
    type=FILE,
    help="Multiple choice instead: JSON lines with `question`, `choices`, `answer`.",
)
@click.option(
    "--tokenizer",
    default="whitespace",
    show_default=True,
    help="Of prompts for random weights: mixtral, whitespace, or a file.",
)
@click.option(
    "--experts",
    "implementations",
    default="",
    help="How experts are computed, each timed: eager,grouped_mm,…  [default: the model's choice]",
)
@click.option(
    "--timed", type=_COUNT, default=5, show_default=True, help="Batches of a setting to time."
)
@click.option("--repeats", type=_COUNT, default=5, show_default=True, help="Timed passes of each.")
@click.option("--counts-only", is_flag=True, help="Keep counts, not every token's choices.")
@click.option("--max-tokens", type=_COUNT, help="Cut prompts to so many tokens.")
@click.option(
    "--limit",
    "limit_s",
    type=_COUNT,
    metavar="SECONDS",
    help="Begin no further setting after so long; what is done is kept.",
)
@click.option("--device", help="cpu, cuda, cuda:1, …  [default: a GPU where there is one]")
@click.option(
    "--dtype",
    type=click.Choice(["bfloat16", "float16", "float32"]),
    help="Of the weights.  [default: bfloat16 on a GPU, float32 on a CPU]",
)
@click.option("--pad-token", type=click.IntRange(min=0), help="Id of the padding token.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of random weights.")
@click.option("-o", "--output", type=FILE, required=True, help="The folder to write; new or empty.")
def run(
    model: str,
    layers: int | None,
    batches: str,
    sorts: bool,
    reroute: bool,
    prompts: Path | None,
    questions: Path | None,
    tokenizer: str,
    implementations: str,
    timed: int,
    repeats: int,
    counts_only: bool,
    max_tokens: int | None,
    limit_s: int | None,
    device: str | None,
    dtype: str | None,
    pad_token: int | None,
    seed: int,
    output: Path,
) -> None:
    """Run batches of prompts through a model, and count and time what its experts do.

    Needs `nsysmoe[model]`; runs on a GPU node with torch, transformers, numpy and click alone.

    \b
    Example:
      nsysmoe padding run --model random:qwen3-30b-a3b --layers 4 --prompts prompts.jsonl
          --sorted --reroute -o padding
    """
    if (prompts is None) == (questions is None):
        raise click.UsageError("give either --prompts or --eval")
    from nsysmoe.model.batches import settings_of

    settings = settings_of(batches)
    from nsysmoe.model.build import Wish
    from nsysmoe.model.measure import Plan
    from nsysmoe.model.measure import run as measure

    plan = Plan(
        settings=settings,
        prompts=prompts,
        questions=questions,
        tokenizer=tokenizer,
        sorts=(False, True) if sorts else (False,),
        reroutes=reroute,
        implementations=tuple(name.strip() for name in implementations.split(",") if name.strip()),
        timed=timed,
        repeats=repeats,
        keeps_choices=not counts_only,
        longest=max_tokens,
        limit_s=limit_s,
    )
    wish = Wish(model, layers, device, dtype, pad_token, seed)
    measure(wish, plan, output, lambda line: click.echo(line, err=True))
    if find_spec("polars") and find_spec("pyarrow"):
        _write_routing(output)
    click.echo(f"Wrote {output}; nsysmoe padding report {output} shows it", err=True)


@command.command("report")
@click.argument("folder", type=FILE)
@output_options
def report(folder: Path, printer: Printer) -> None:
    """Balance, time and harmlessness of what `padding run` measured, with heatmaps in HTML.

    Routing logs in Parquet (FOLDER/routing) are made where they are not there yet.

    \b
    Example:
      nsysmoe padding report padding -o padding.html
    """
    from nsysmoe.analysis.routing.padded_model import padding_report
    from nsysmoe.reports.pages.routing.padded_model import padding_page
    from nsysmoe.routing.padded import COUNTS, RECORD

    with working(f"Reading {folder}"):
        found = padding_report(folder)
        _write_routing(folder)
    printer.show(padding_page(found), (folder / RECORD, folder / COUNTS))


def _write_routing(folder: Path) -> None:
    from nsysmoe.reports.escape import visible
    from nsysmoe.routing.padded import read_padded, write_routing

    for path in write_routing(read_padded(folder)):
        click.echo(f"Wrote {visible(str(path))}", err=True)
