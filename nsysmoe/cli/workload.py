"""``nsysmoe workload``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nsysmoe.cli.options import FILE, Finite, output_options
from nsysmoe.cli.progress import working

if TYPE_CHECKING:
    from pathlib import Path

    from nsysmoe.cli.options import Printer

_tokenizer_option = click.option(
    "--tokenizer",
    metavar="mixtral|whitespace|PATH",
    help="Whose tokens are counted: PATH is a tokenizer.json or a SentencePiece .model.  "
    "[default: mixtral, or whitespace where mistral-common is not installed]",
)


_errors_option = click.option(
    "--max-errors",
    type=click.IntRange(min=0),
    default=100,
    show_default=True,
    help="Bad rows that are left out before it is an error.",
)


@click.group("workload")
def command() -> None:
    """Sets of prompts: made as concentrated as wanted, and scored.

    \b
    Example:
      nsysmoe workload generate suite --seed 7
      nsysmoe workload score prompts.jsonl

    Subcommands have --format and -o, --output.
    """


@command.command("score")
@click.argument("file", type=FILE)
@_tokenizer_option
@click.option("--no-semantic", is_flag=True, help="Leave the similarity of prompts out.")
@click.option("--field", default="prompt", show_default=True, help="The field with the text.")
@_errors_option
@output_options
def score(
    file: Path,
    tokenizer: str | None,
    no_semantic: bool,
    field: str,
    max_errors: int,
    printer: Printer,
) -> None:
    """Expected imbalance of the prompts of FILE, by the paper's ImbalancePredictor.

    FILE holds JSON lines with a field `prompt`, conversations of ShareGPT, or Parquet.

    \b
    Example:
      nsysmoe workload score prompts.jsonl --format json
    """
    from nsysmoe.analysis.experiments.workload_score import workload_score
    from nsysmoe.reports.pages.experiments.workload import workload_score_page

    with working(f"Scoring {file}"):
        found = workload_score(
            file, tokenizer, semantic=not no_semantic, field=field, max_errors=max_errors
        )
    printer.show(workload_score_page(found), (file,))


@command.command("generate")
@click.argument("folder", type=FILE)
@click.option(
    "--family",
    "families",
    multiple=True,
    type=click.Choice(["repetition", "semantic", "structure", "none"]),
    help="A family of sets; may be repeated.  [default: all three; with --from all but semantic]",
)
@click.option(
    "--dial",
    "dials",
    multiple=True,
    type=Finite(0, 1),
    help="Where each family's dial stands: 0 various, 1 concentrated; may be repeated.  "
    "[default: 0, 0.25, 0.5, 0.75, 1]",
)
@click.option(
    "--mixtures",
    type=click.IntRange(min=0),
    default=5,
    show_default=True,
    help="Sets with all dials drawn at random.",
)
@click.option(
    "-n",
    "--prompts",
    "count",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="Prompts of each set.",
)
@click.option(
    "--tokens",
    type=click.IntRange(min=1),
    default=128,
    show_default=True,
    help="Length of each prompt; with --spread the median.",
)
@click.option(
    "--spread",
    type=Finite(min=0, max=3),
    default=0.0,
    show_default=True,
    help="Deviation of the logarithm of lengths: 0 for equal ones, 0.7 as of exam questions.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Same seed, same bytes.")
@_tokenizer_option
@click.option("--domains", type=FILE, help="TOML with domains of your own.")
@click.option("--from", "real", type=FILE, help="Make sets from these prompts: JSONL, Parquet.")
@click.option("--field", default="prompt", show_default=True, help="Its field with the text.")
@_errors_option
@click.option(
    "--token-ids",
    is_flag=True,
    help="Write prompt_token_ids as well, for vLLM without a tokenizer (--skip-tokenizer-init).",
)
@output_options
def generate(
    folder: Path,
    families: tuple[str, ...],
    dials: tuple[float, ...],
    mixtures: int,
    count: int,
    tokens: int,
    spread: float,
    seed: int,
    tokenizer: str | None,
    domains: Path | None,
    real: Path | None,
    field: str,
    max_errors: int,
    token_ids: bool,
    printer: Printer,
) -> None:
    """Write sets of prompts of known concentration to FOLDER, with a manifest.

    Three families have a dial each: repetition of one prompt, concentration on one domain, and
    one structure for all. -o writes the overview; the sets are in FOLDER.

    \b
    Example:
      nsysmoe workload generate suite --prompts 200 --tokens 256 --seed 7
      nsysmoe workload generate own --from sharegpt.json --family repetition
    """
    from nsysmoe.analysis.experiments.workload_suite import DIALS, Plan
    from nsysmoe.analysis.experiments.workload_suite import generate as make
    from nsysmoe.reports.pages.experiments.workload import suite_page

    if domains and real:
        raise click.UsageError("--domains and --from are two sources of sentences; give one")
    wanted = _families(families, is_real=real is not None)
    if not wanted and not mixtures:
        raise click.UsageError("there is nothing to write; name a --family or --mixtures")
    plan = Plan(wanted, dials or DIALS, mixtures, count, tokens, seed, token_ids, spread)
    with working(f"Writing {folder}"):
        suite = make(
            folder, plan, tokenizer, domains=domains, real=real, field=field, max_errors=max_errors
        )
    printer.show(suite_page(suite), [path for path in (domains, real) if path])


def _families(asked: tuple[str, ...], *, is_real: bool) -> tuple[str, ...]:
    """Return the families to write; prompts of the user's have no domains to mix."""
    from nsysmoe.workload.generate.recipe import FAMILIES, SEMANTIC

    if not asked:
        return tuple(name for name in FAMILIES if not (is_real and name == SEMANTIC))
    return tuple(name for name in asked if name != "none")
