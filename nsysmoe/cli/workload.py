"""``nsysmoe workload``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nsysmoe.cli.options import FILE, output_options
from nsysmoe.cli.progress import working

if TYPE_CHECKING:
    from pathlib import Path

    from nsysmoe.cli.options import Printer


@click.group("workload")
def command() -> None:
    """Sets of prompts: how concentrated their tokens are.

    \b
    Example:
      nsysmoe workload score prompts.jsonl

    Subcommands have --format and -o, --output.
    """


@command.command("score")
@click.argument("file", type=FILE)
@click.option(
    "--tokenizer",
    metavar="mixtral|whitespace|PATH",
    help="Whose tokens are counted: PATH is a tokenizer.json or a SentencePiece .model.  "
    "[default: mixtral, or whitespace where mistral-common is not installed]",
)
@click.option("--no-semantic", is_flag=True, help="Leave the similarity of prompts out.")
@click.option("--field", default="prompt", show_default=True, help="The field with the text.")
@click.option(
    "--max-errors",
    type=click.IntRange(min=0),
    default=100,
    show_default=True,
    help="Bad rows that are left out before it is an error.",
)
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
    from nsysmoe.analysis.workload_score import workload_score
    from nsysmoe.reports.pages.workload import workload_score_page

    with working(f"Scoring {file}"):
        found = workload_score(
            file, tokenizer, semantic=not no_semantic, field=field, max_errors=max_errors
        )
    printer.show(workload_score_page(found), (file,))
