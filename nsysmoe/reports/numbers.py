"""Numbers as a reader wants them: few digits, thousands separated, the unit in the title."""

from __future__ import annotations

UNKNOWN = "n/a"
_ROUNDING_NS = 1e-3


def decimal(value: float | None) -> str:
    """Format with thousands separators: none, two or three significant decimals by size."""
    if value is None:
        return UNKNOWN
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:,.2f}" if abs(value) >= 1 else f"{value:#.3g}"


def milliseconds(ns: float | None) -> str:
    """Format a time in ns as ms; what is below a picosecond is rounding of sums, and nothing."""
    if ns is None:
        return UNKNOWN
    return decimal(ns / 1e6 if abs(ns) >= _ROUNDING_NS else 0.0)


def seconds_as_ms(seconds: float | None) -> str:
    """Format a time in s as ms."""
    return decimal(None if seconds is None else seconds * 1e3)


def microseconds(ns: float | None) -> str:
    """Format a time in ns as us."""
    return decimal(None if ns is None else ns / 1e3)


def seconds(ns: float | None) -> str:
    """Format a time in ns as s."""
    return decimal(None if ns is None else ns / 1e9)


def times(ratio: float | None) -> str:
    """Format a ratio as a multiple: 92,519×."""
    return UNKNOWN if ratio is None else f"{decimal(ratio)}×"


def count(value: float | None) -> str:
    """Format a number of things."""
    return UNKNOWN if value is None else f"{value:,}"


def share(ratio: float | None) -> str:
    """Format a part of a whole in percent."""
    return UNKNOWN if ratio is None else f"{ratio:.1%}"


def change(ratio: float | None) -> str:
    """Format a change in percent with its sign; no sign where it rounds to 0."""
    if ratio is None:
        return UNKNOWN
    rounded = round(ratio * 100, 1)
    return f"{rounded:+,.1f}%" if rounded else "0.0%"


def as_is(value: object) -> str:
    """Format a name, or the number of a process or device."""
    return UNKNOWN if value is None else str(value)


def size(number: int) -> str:
    """Format a number of bytes in the largest decimal unit of which there is one."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if number >= factor:
            return f"{number / factor:.1f} {unit}"
    return f"{number} B"


def interval(low: float | None, high: float | None) -> str:
    """Format the ends of an interval of shares; nothing where it is not known."""
    return "" if low is None or high is None else f"{share(low)} to {share(high)}"
