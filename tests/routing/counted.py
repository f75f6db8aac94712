"""Logs of counts, as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


def logged(path: Path, loads: Any) -> Path:
    """Write counts [steps, layers, experts] as a table."""
    rows = [
        f"{step},{layer},{expert},{count}"
        for step, layers in enumerate(loads)
        for layer, experts in enumerate(layers)
        for expert, count in enumerate(experts)
    ]
    path.write_text("step,layer,expert,tokens\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return path
