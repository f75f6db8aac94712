"""The class map: which kernels are experts, collectives, attention, and so on."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, cached_property
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from nsysmoe.bounded_files import read_toml, shipped_toml
from nsysmoe.classes.function import Function, parse_function, parse_reduction
from nsysmoe.errors import ClassMapError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

UNCLASSIFIED = "unclassified"
COLLECTIVE = "collective"
MOE_GEMM = "moe_gemm"
EPLB = "eplb"
# NCCL up to 2.18 names a reduction in all of its kernels, also in those that have none.
_REDUCING_ROLES = {"all_reduce", "reduce_scatter", "reduce"}
_RULE_KEYS = {"class", "backend", "role", "function", "scope", "template"}


@dataclass(frozen=True)
class KernelClass:
    """What one kernel name was found to be; ``unclassified`` where no rule matched.

    ``reduction`` and ``data_type`` are read off the names of collectives that reduce.
    """

    function: str
    name: str = UNCLASSIFIED
    backend: str | None = None
    role: str | None = None
    reduction: str | None = None
    data_type: str | None = None


@dataclass(frozen=True)
class Rule:
    """One entry of the map; all of its patterns have to match."""

    name: str
    backend: str | None
    role: str | None
    function: re.Pattern[str]
    scope: re.Pattern[str] | None
    template: re.Pattern[str] | None

    def matches(self, function: Function) -> bool:
        """Tell whether the rule holds for a name that was taken apart."""
        return (
            self.function.fullmatch(function.name) is not None
            and (self.scope is None or self.scope.fullmatch(function.scope) is not None)
            and (self.template is None or self.template.search(function.template) is not None)
        )


@dataclass(frozen=True)
class ClassMap:
    """Ordered rules and the classes that they assign; ``descriptions`` is class to meaning."""

    rules: tuple[Rule, ...]
    descriptions: dict[str, str]

    @cached_property
    def digest(self) -> str:
        """A digest of the rules: maps that classify alike have the same."""
        patterns = [
            (
                *(rule.name, rule.backend, rule.role),
                *(p and p.pattern for p in (rule.function, rule.scope, rule.template)),
            )
            for rule in self.rules
        ]
        return blake2b(repr(patterns).encode(), digest_size=16).hexdigest()

    def classify(self, kernel_name: str) -> KernelClass:
        """Return the class of a kernel by the first rule that matches its function."""
        function = parse_function(kernel_name)
        for rule in self.rules:
            if rule.matches(function):
                reduces = rule.name == COLLECTIVE and rule.role in _REDUCING_ROLES
                reduced = parse_reduction(function.name) if reduces else (None, None)
                return KernelClass(function.name, rule.name, rule.backend, rule.role, *reduced)
        return KernelClass(function.name)

    def extended_by(self, path: Path) -> ClassMap:
        """Return a map that asks the rules of the TOML file ``path`` before its own.

        Raises:
            ClassMapError: The file cannot be read or is not of the documented form.
        """
        own = _map_of(read_toml(path, fix="check --classes", error=ClassMapError), str(path))
        return ClassMap(own.rules + self.rules, {**self.descriptions, **own.descriptions})


@cache
def default_class_map() -> ClassMap:
    """Return the map that ships with nsysmoe (``classes.toml``)."""
    return _map_of(shipped_toml("nsysmoe.classes", "classes.toml"), "classes.toml")


def _map_of(document: dict[str, Any], where: str) -> ClassMap:
    entries = document.get("rule", [])
    descriptions = document.get("classes", {})
    if not isinstance(entries, list) or not isinstance(descriptions, dict):
        raise ClassMapError(f"{where}: expected [[rule]] tables and one [classes] table")
    rules = tuple(_rule(entry, f"{where}, rule {n}") for n, entry in enumerate(entries, 1))
    return ClassMap(rules, {str(name): str(meaning) for name, meaning in descriptions.items()})


def _rule(entry: Any, where: str) -> Rule:
    if not isinstance(entry, dict) or not {"class", "function"} <= entry.keys():
        raise ClassMapError(f"{where}: a rule needs at least `class` and `function`")
    if unknown := sorted(entry.keys() - _RULE_KEYS):
        allowed = ", ".join(sorted(_RULE_KEYS))
        raise ClassMapError(f"{where}: unknown key `{unknown[0]}`; a rule may hold {allowed}")
    return Rule(
        name=_text(entry["class"], "class", where),
        backend=_optional_text(entry, "backend", where),
        role=_optional_text(entry, "role", where),
        function=_pattern(entry["function"], "function", where),
        scope=_pattern(entry["scope"], "scope", where) if "scope" in entry else None,
        template=_pattern(entry["template"], "template", where) if "template" in entry else None,
    )


def _pattern(value: Any, key: str, where: str) -> re.Pattern[str]:
    alternatives: Iterable[Any] = value if isinstance(value, list) else [value]
    texts = [_text(alternative, key, where) for alternative in alternatives]
    try:
        return re.compile("|".join(f"(?:{text})" for text in texts))
    except re.error as error:
        raise ClassMapError(f"{where}: `{key}` is not a regular expression: {error}") from error


def _text(value: Any, key: str, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise ClassMapError(f"{where}: `{key}` must be a text that is not empty")
    return value


def _optional_text(entry: dict[str, Any], key: str, where: str) -> str | None:
    return _text(entry[key], key, where) if key in entry else None
