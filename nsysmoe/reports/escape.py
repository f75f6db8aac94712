"""Text from a trace is hostile: control characters must not reach a terminal or a page."""

from __future__ import annotations

import unicodedata

# Cc controls (ESC, NUL, newline), Cf formats (bidirectional overrides), Cs and Co, and the two
# separators that end a line.
_UNSAFE_CATEGORIES = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def visible(text: str) -> str:
    r"""Return the text with every character that could steer a terminal written as an escape.

    >>> visible("fused\x1b[2J")
    'fused\\x1b[2J'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_shown(char) for char in text)


def _shown(char: str) -> str:
    if unicodedata.category(char) not in _UNSAFE_CATEGORIES:
        return char
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
