"""From a number to a mutant: which seed, what is done to it, and which command is asked of it."""

from __future__ import annotations

import random
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.fuzz import damage, tables, texts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.fuzz.damage import Damage

TRACES = 0.55
# The command, and how often it is asked; a report draws all its pictures anew.
_OF_TRACES = {
    "summary": 20, "kernels": 12, "info": 12, "collectives": 12, "imbalance": 12, "phases": 12,
    "waits": 12, "compare": 2, "compare --quick": 6, "report": 1, "stalls": 2, "host": 2,
    "bound": 2, "timeline": 1, "whatif": 1,
}  # fmt: skip

_LOG = ("routing load {mutant} -o {out}.parquet", "routing balance {mutant} --gpus 2",
        "routing load --keep-dummy {mutant} -o {out}.parquet",
        "advise --routing {mutant} --gpus 2")  # fmt: skip
_SWEPT = ("correlate {mutant} --y tpot", "figures {mutant} --format json")
_PROMPTS = ("workload score {mutant} --tokenizer whitespace",)
_RUN = ("sweep collect {mutant} --table {out}.parquet",)
_TRACED = "{whole} --routed {routed} --run {run}"
# What is asked of each document beside a trace.
_OF_DOCUMENTS: dict[str, tuple[str, ...]] = {
    "run.json": (
        f"routing explain {_TRACED}", *_RUN,
        "placement evaluate --map {mutant} --loads {wide} --gpus 2",
        f"roofline {_TRACED} --config {{config}}",
    ),
    "rounds.json": (
        "host {traces}/dp2_off.sqlite --run-json {mutant}", *_RUN,
        "compare --quick {folder}/a.sqlite {folder}/a.sqlite",
    ),
    "config.json": (f"roofline {_TRACED} --config {{config}}",),
    "bench.json": _RUN,
    "answer.json": _LOG, "packed.json": _LOG, "gate_logs_3.json": _LOG,
    "plan.json": ("placement evaluate --map {mutant} --loads {loads}",),
    "map.json": ("placement evaluate --map {mutant} --loads {loads} --gpus 2",),
    "manifest.json": (
        "sweep collect {documents}/bench.json --suite {mutant} --table {out}.parquet",
    ),
    "prompts.json": _PROMPTS, "prompts.jsonl": _PROMPTS, "prompts.parquet": _PROMPTS,
    "routes.jsonl": _LOG, "batches.jsonl": _LOG, "counts.jsonl": _LOG,
    "routed.npz": _LOG, "plain.npz": _LOG, "routed.npy": _LOG,
    "choices.csv": _LOG, "choices.parquet": _LOG,
    "sweep.csv": _SWEPT, "sweep.json": _SWEPT, "sweep.parquet": _SWEPT,
    "loads.csv": ("placement plan --loads {mutant} --gpus 2 --slots 4",
                  "placement evaluate --map {documents}/map.json --loads {mutant} --gpus 2"),
    "window.csv": ("summary {mutant}", "compare {mutant} {documents}/stats.csv"),
    "stats.csv": ("summary {mutant}", "kernels {mutant}"),
    "rules.toml": ("summary {documents}/stats.csv --classes {mutant}",),
    "saved.json": ("render {mutant}",),
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """One broken input.

    Attributes:
        number: Which; with the seed of the run it tells all the rest.
        path: The file.
        source: The seed that it was made of.
        change: What was done, in words.
        arguments: The command line that is asked, without ``nsysmoe``.
        traces: The traces that the answer is about, where it is about some.
        output: The file that the command may write.
    """

    number: int
    path: Path
    source: str
    change: str
    arguments: tuple[str, ...]
    traces: tuple[Path, ...]
    output: Path

    @property
    def command(self) -> str:
        """The command's name."""
        nested = {"routing", "placement", "workload", "sweep"}
        return " ".join(self.arguments[: 2 if self.arguments[0] in nested else 1])


def make(corpus: Path, seed: int, number: int, folder: Path, traces: float = TRACES) -> Mutant:
    """Write a mutant into an empty folder; the same seed and number give the same bytes.

    Args:
        corpus: What ``seeds.write_corpus`` wrote.
        seed: Of the run.
        number: Which mutant.
        folder: Where it goes.
        traces: The share of traces among the mutants, the others being documents.
    """
    chosen = random.Random(f"{seed}:{number}")
    if chosen.random() < traces:
        return _trace(corpus, chosen, number, folder)
    return _document(corpus, chosen, number, folder)


def unbroken(corpus: Path, folder: Path) -> Iterator[Mutant]:
    """Yield every seed as it is: all of them have to be answered.

    Documents with every command that reads them, one trace with all, the others with one.
    """
    chosen = random.Random(0)
    for source in sorted((corpus / "traces").iterdir()):
        path = Path(shutil.copy(source, folder / "mutant.sqlite"))
        for name in _OF_TRACES if source.name == "dp2_on.sqlite" else ("summary",):
            yield _asked_of_trace(path, source, name, chosen, 0, "unbroken")
    for name, commands in _OF_DOCUMENTS.items():
        for asked in commands:
            source = corpus / "documents" / name
            yield _asked_of_document(
                corpus, source, asked, folder, 0, ("unbroken", source.read_bytes())
            )


def _trace(corpus: Path, chosen: random.Random, number: int, folder: Path) -> Mutant:
    source = chosen.choice(sorted((corpus / "traces").iterdir()))
    path = Path(shutil.copy(source, folder / "mutant.sqlite"))
    if chosen.random() < 0.45:
        what = tables.change(path, chosen)
    else:
        what, content = chosen.choice(damage.OF_SQLITE)(source.read_bytes(), chosen)
        path.write_bytes(content)
    name = chosen.choices(list(_OF_TRACES), list(_OF_TRACES.values()))[0]
    return _asked_of_trace(path, source, name, chosen, number, what)


def _asked_of_trace(
    path: Path, source: Path, name: str, chosen: random.Random, number: int, what: str
) -> Mutant:
    command, *options = name.split()
    pair = [path]
    if command in {"compare", "report"}:
        pair.insert(chosen.randrange(2), source)
    output = path.with_name("out.html")
    how = ["--format", "json"] if command != "report" else ["-o", str(output)]
    arguments = (command, *map(str, pair), *options, *how)
    return Mutant(number, path, source.name, what, arguments, tuple(pair), output)


def _document(corpus: Path, chosen: random.Random, number: int, folder: Path) -> Mutant:
    source = corpus / "documents" / chosen.choice(sorted(_OF_DOCUMENTS))
    changed = chosen.choice(_ways(source))(source.read_bytes(), chosen)
    asked = chosen.choice(_OF_DOCUMENTS[source.name])
    return _asked_of_document(corpus, source, asked, folder, number, changed)


def _asked_of_document(
    corpus: Path, source: Path, asked: str, folder: Path, number: int, changed: Damage
) -> Mutant:
    what, content = changed
    # A record lies beside its trace.
    path = folder / ("run.json" if "{folder}" in asked else source.name)
    path.write_bytes(content)
    if "{folder}" in asked:
        shutil.copy(corpus / "traces" / "dp2_off.sqlite", folder / "a.sqlite")
    documents = corpus / "documents"
    places = {
        "mutant": path, "folder": folder, "out": folder / "out", "documents": documents,
        "traces": corpus / "traces", "loads": documents / "loads.csv", "wide": corpus / "wide.csv",
        "routed": corpus / "replicas.npz", "run": corpus / "replicas.json",
        "whole": corpus / "replicas.sqlite", "config": documents / "config.json",
    }  # fmt: skip
    if source.name in {"run.json", "config.json"}:
        places[source.stem] = path
    arguments = [part.format(**places) for part in asked.split()]
    if "--format" not in arguments and "-o" not in arguments:
        arguments += ["--format", "json"]
    return Mutant(number, path, source.name, what, tuple(arguments), (), folder / "out.parquet")


def _ways(source: Path) -> tuple[Callable[[bytes, random.Random], Damage], ...]:
    if source.suffix == ".json":
        return (*[texts.json_changed] * 5, texts.text_changed, *damage.ANY)
    if source.suffix == ".jsonl":
        return (*[texts.lines_changed] * 5, texts.text_changed, *damage.ANY)
    if source.suffix == ".csv":
        return (*[texts.cells_changed] * 5, texts.text_changed, *damage.ANY)
    if source.suffix == ".toml":
        return (texts.text_changed, *damage.ANY)
    return damage.ANY
