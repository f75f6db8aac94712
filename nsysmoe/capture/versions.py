"""What each version of vLLM takes, by the table ``versions.toml``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Any

from nsysmoe.bounded_files import shipped_toml
from nsysmoe.errors import CaptureError

_NUMBER = re.compile(r"v?(\d+)\.(\d+)(?:\.(\d+))?")


@dataclass(frozen=True, order=True)
class Version:
    """A release of vLLM, without what follows its three numbers."""

    major: int
    minor: int
    patch: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"

    @classmethod
    def parse(cls, text: str) -> Version:
        """Read a version such as ``0.26.0+cu130``.

        Raises:
            CaptureError: It is none.
        """
        if (found := _NUMBER.match(text.strip())) is None:
            raise CaptureError(f"{text!r} is no version of vLLM; write one such as 0.26.0")
        return cls(int(found[1]), int(found[2]), int(found[3] or 0))

    @property
    def is_known(self) -> bool:
        """Tell whether the table was written with this version at hand."""
        last = Version.parse(_table()["last"])
        return (self.major, self.minor) <= (last.major, last.minor)

    def has(self, feature: str) -> bool:
        """Tell whether this version has a feature of the table."""
        entry = _table()["feature"][feature]
        until = entry.get("until")
        return Version.parse(entry["since"]) <= self and (
            until is None or self < Version.parse(until)
        )

    def takes(self, key: str) -> bool:
        """Tell whether ``eplb_config`` has this key."""
        return Version.parse(_table()["eplb_config"][key]) <= self

    def balances(self, architecture: str) -> bool:
        """Tell whether EPLB knows an architecture, as far as the table tells."""
        since = _table()["eplb_model"].get(architecture)
        return since is None or Version.parse(since) <= self


def supported(text: str) -> Version:
    """Read a version that can be captured with.

    Raises:
        CaptureError: It is older than the oldest of the table.
    """
    version = Version.parse(text)
    first = Version.parse(_table()["first"])
    if version < first:
        raise CaptureError(
            f"vLLM {version} is older than {first}, the first whose EPLB options are known here; "
            "install a newer one"
        )
    return version


def since(feature: str) -> str:
    """Return the first version with a feature."""
    return str(_table()["feature"][feature]["since"])


def eplb_key_since(key: str) -> str:
    """Return the first version whose ``eplb_config`` has a key."""
    return str(_table()["eplb_config"][key])


@cache
def _table() -> dict[str, Any]:
    return shipped_toml("nsysmoe.capture", "versions.toml")
