"""Damage to bytes: what disks, copies and networks do to a file of any kind, and to SQLite's."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

PAGE = 4096

Damage = tuple[str, bytes]
"""What was done, in words, and the bytes after it."""


def flipped(content: bytes, chosen: random.Random) -> Damage:
    """Flip one to 64 bits anywhere."""
    bits = chosen.choice((1, 1, 2, 8, 64))
    changed = bytearray(content)
    for _ in range(bits):
        changed[chosen.randrange(len(changed))] ^= 1 << chosen.randrange(8)
    return f"{bits} bits flipped", bytes(changed)


def flipped_in_structure(content: bytes, chosen: random.Random) -> Damage:
    """Flip a bit where SQLite keeps its order: the file's head, or the head of a page."""
    changed = bytearray(content)
    page = chosen.choice((0, chosen.randrange(max(1, len(content) // PAGE))))
    place = min(page * PAGE + chosen.randrange(100 if page == 0 else 16), len(content) - 1)
    changed[place] ^= 1 << chosen.randrange(8)
    return f"a bit flipped at {place}", bytes(changed)


def cut_short(content: bytes, chosen: random.Random) -> Damage:
    """End the file at the boundary of a page, or anywhere."""
    if chosen.random() < 0.7 and len(content) > PAGE:
        kept = chosen.randrange(len(content) // PAGE) * PAGE
    else:
        kept = chosen.randrange(len(content))
    return f"cut to {kept} bytes", content[:kept]


def cut_and_honest(content: bytes, chosen: random.Random) -> Damage:
    """End the file at a page, and let the header say that this is all there is."""
    pages = chosen.randrange(1, max(2, len(content) // PAGE))
    changed = bytearray(content[: pages * PAGE])
    changed[28:32] = struct.pack(">I", pages)
    return f"cut to {pages} pages, and the header agrees", bytes(changed)


def page_lost(content: bytes, chosen: random.Random) -> Damage:
    """Overwrite a page: with zeros, ones, noise, or with another page of the file."""
    pages = max(1, len(content) // PAGE)
    lost, other = chosen.randrange(pages), chosen.randrange(pages)
    kind = chosen.choice(("zeros", "ones", "noise", "another page", "its neighbour's half"))
    fill = {
        "zeros": bytes(PAGE),
        "ones": b"\xff" * PAGE,
        "noise": chosen.randbytes(PAGE),
        "another page": content[other * PAGE : (other + 1) * PAGE],
        "its neighbour's half": content[other * PAGE + PAGE // 2 : (other + 1) * PAGE],
    }[kind]
    start = lost * PAGE
    return f"page {lost} became {kind}", content[:start] + fill + content[start + len(fill) :]


def pages_swapped(content: bytes, chosen: random.Random) -> Damage:
    """Put two pages in each other's place."""
    pages = max(1, len(content) // PAGE)
    one, other = sorted((chosen.randrange(pages), chosen.randrange(pages)))
    changed = bytearray(content)
    changed[one * PAGE : (one + 1) * PAGE] = content[other * PAGE : (other + 1) * PAGE]
    changed[other * PAGE : (other + 1) * PAGE] = content[one * PAGE : (one + 1) * PAGE]
    return f"pages {one} and {other} swapped", bytes(changed)


def shifted(content: bytes, chosen: random.Random) -> Damage:
    """Lose or gain some bytes in the middle."""
    place, size = chosen.randrange(len(content)), chosen.choice((1, 3, 512))
    if chosen.random() < 0.5:
        return f"{size} bytes lost at {place}", content[:place] + content[place + size :]
    return f"{size} bytes gained at {place}", content[:place] + bytes(size) + content[place:]


def tail_added(content: bytes, chosen: random.Random) -> Damage:
    """Add what does not belong to the end."""
    size = chosen.choice((1, 100, PAGE, 3 * PAGE))
    return f"{size} bytes at the end", content + chosen.randbytes(size)


def header_changed(content: bytes, chosen: random.Random) -> Damage:
    """Set a field of SQLite's header to another value."""
    fields = {"page size": (16, 2), "versions": (18, 2), "reserved": (20, 1), "change": (24, 4),
              "pages": (28, 4), "freelist": (32, 4), "free pages": (36, 4), "schema": (40, 4),
              "format": (44, 4), "vacuum": (52, 4), "encoding": (56, 4),
              "valid for": (92, 4)}  # fmt: skip
    name = chosen.choice(list(fields))
    start, size = fields[name]
    value = chosen.choice((0, 1, 2, 3, 512, 65535, 2**31, 2**32 - 1)) % (1 << (8 * size))
    return f"header: {name} = {value}", (
        content[:start] + value.to_bytes(size, "big") + content[start + size :]
    )


ANY: tuple[Callable[[bytes, random.Random], Damage], ...] = (
    flipped, cut_short, shifted, tail_added,
)  # fmt: skip
OF_SQLITE: tuple[Callable[[bytes, random.Random], Damage], ...] = (
    flipped, flipped, flipped_in_structure, flipped_in_structure, cut_short, cut_and_honest,
    page_lost, page_lost, pages_swapped, shifted, tail_added, header_changed,
)  # fmt: skip
