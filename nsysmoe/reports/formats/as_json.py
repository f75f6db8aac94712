"""JSON: the document's exact data, ASCII only, so that no text in it can steer a terminal."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nsysmoe.reports.document import Document


def render(document: Document) -> str:
    """Return the data; values that JSON lacks (dates, blobs, NaN) become text or null."""
    return json.dumps(_plain(document.data), indent=2, allow_nan=False) + "\n"


def compact(value: Any) -> str:
    """Return a value on one line: what a field of a table holds."""
    return json.dumps(_plain(value), allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, Decimal) and value.is_finite():
        # DuckDB's sums of integers come as decimals.
        return int(value) if value == value.to_integral_value() else float(value)
    return str(value)
