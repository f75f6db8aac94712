"""What prompts are made of: domains and templates as data, or prompts of the user's."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from nsysmoe.bounded_files import read_toml, shipped_toml
from nsysmoe.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from nsysmoe.workload.generate.draws import Draws

_SLOTS = {"thing": "things", "action": "actions", "quality": "qualities", "place": "places"}
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


@dataclass(frozen=True)
class Domain:
    """A field of knowledge: words for the slots of templates, by the names of ``domains.toml``."""

    name: str
    words: dict[str, tuple[str, ...]]

    def fill(self, template: str, draws: Draws) -> str:
        """Return the template with a word drawn for each slot, the first of a list most often."""
        drawn = {slot: draws.ranked(self.words[key]) for slot, key in _SLOTS.items()}
        drawn["other"] = draws.ranked(self.words["things"])
        # By text, not by str.format: a brace in a user's word is only a brace.
        for slot, word in drawn.items():
            template = template.replace(f"{{{slot}}}", word)
        return template


@dataclass(frozen=True)
class Templates:
    """Sentences of free prompts, and the one frame of templated ones."""

    sentences: tuple[str, ...]
    frame: tuple[str, ...]


class Material(Protocol):
    """Where sentences come from."""

    @property
    def domains(self) -> tuple[str, ...]:
        """Names of the domains; one for material that knows none."""

    def free(self, domain: int, draws: Draws) -> Iterator[str]:
        """Return sentences without end, of one prompt in free form."""

    def framed(self, domain: int, draws: Draws) -> Iterator[str]:
        """Return sentences without end, of one prompt in the frame."""


@dataclass(frozen=True)
class Written:
    """The material that ships with nsysmoe, or domains of the user's in the same form."""

    fields: tuple[Domain, ...]
    templates: Templates

    @property
    def domains(self) -> tuple[str, ...]:
        """Names of the domains."""
        return tuple(field.name for field in self.fields)

    def free(self, domain: int, draws: Draws) -> Iterator[str]:
        """Return filled sentences, each in a form of its own."""
        while True:
            yield self.fields[domain].fill(draws.choice(self.templates.sentences), draws)

    def framed(self, domain: int, draws: Draws) -> Iterator[str]:
        """Return the frame's sentences in order, filled, over and over."""
        while True:
            for template in self.templates.frame:
                yield self.fields[domain].fill(template, draws)


@dataclass(frozen=True)
class Real:
    """Prompts of the user's, cut into sentences; the frame stands around each."""

    source: str
    texts: Sequence[str]
    templates: Templates
    domains: tuple[str, ...] = ("real",)

    def free(self, domain: int, draws: Draws) -> Iterator[str]:  # noqa: ARG002 - there is one
        """Return the sentences of one prompt, then of another: short ones are continued."""
        while True:
            yield from _sentences(draws.choice(self.texts))

    def framed(self, domain: int, draws: Draws) -> Iterator[str]:
        """Return the frame's sentences in order, the first words of a real one in each slot."""
        real = self.free(domain, draws)
        while True:
            for template in self.templates.frame:
                words = " ".join(next(real).split()[:4]).rstrip(".!?,;:")
                yield re.sub(r"\{\w+\}", lambda _, words=words: words, template)  # type: ignore[misc]


def written(path: Path | None = None) -> Written:
    """Return the shipped material, with the domains of a TOML file instead of its own.

    Raises:
        InputError: The file is unreadable or not of the documented form.
    """
    if path is None:
        return Written(_domains(_shipped("domains.toml"), "domains.toml"), templates())
    found = read_toml(path, fix="check --domains")
    return Written(_domains(found, str(path)), templates())


def templates() -> Templates:
    """Return the templates that ship with nsysmoe."""
    found = _shipped("templates.toml")
    return Templates(tuple(found["sentences"]), tuple(found["frame"]))


def _shipped(name: str) -> dict[str, Any]:
    return shipped_toml("nsysmoe.workload.generate", name)


def _domains(found: dict[str, Any], where: str) -> tuple[Domain, ...]:
    tables = found.get("domain")
    if not isinstance(tables, dict) or not tables:
        raise InputError(f"{where} has no [domain.NAME]; docs/workload.md has the form")
    return tuple(_domain(name, table, where) for name, table in tables.items())


def _domain(name: str, table: Any, where: str) -> Domain:
    for key in _SLOTS.values():
        words = table.get(key) if isinstance(table, dict) else None
        if not isinstance(words, list) or not words or not all(isinstance(w, str) for w in words):
            raise InputError(f"{where}: [domain.{name}] needs `{key}`, a list of texts")
    return Domain(name, {key: tuple(table[key]) for key in _SLOTS.values()})


def _sentences(text: str) -> list[str]:
    return [part for part in _SENTENCE_END.split(text.strip()) if part]
