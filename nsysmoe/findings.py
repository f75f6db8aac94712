"""A finding: one thing a reader should know before believing a number, with its evidence."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

Severity = Literal["info", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """One observation, in one sentence, with the numbers it stands on.

    Attributes:
        code: Stable identifier in snake_case, e.g. ``unequal_work``.
        severity: ``info`` to know, ``warning`` to weigh before a verdict, ``error`` where
            the numbers cannot answer the question.
        message: One sentence for a person. It may quote names from a trace: escape it.
        evidence: JSON values only; times are integers in ns, shares are ratios from 0 to 1.
    """

    code: str
    severity: Severity
    message: str
    evidence: dict[str, Any] = field(default_factory=dict)

    @property
    def explains_ns(self) -> float:
        """How much wall time of a run it accounts for, ns; 0 where that is not its point."""
        return float(self.evidence.get("explains_ns") or 0.0)

    def explaining(self, ns: float) -> Finding:
        """Return the finding with the wall time that it accounts for among its evidence."""
        return replace(self, evidence={**self.evidence, "explains_ns": ns})

    def to_dict(self) -> dict[str, Any]:
        """Return the finding as JSON values, with the keys that the JSON format fixes."""
        return {
            "code": self.code,
            "severity": self.severity,
            "message": self.message,
            "evidence": self.evidence,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Finding:
        """Build a finding from what ``to_dict`` returned."""
        return cls(values["code"], values["severity"], values["message"], values["evidence"])
