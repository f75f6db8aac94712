"""Answers kept between processes: named by what they came from, published whole, bounded."""

from nsysmoe.cache.folder import Cache, Entry, Stored, cache_folder, open_cache
from nsysmoe.cache.held import held_folder, sweep
from nsysmoe.cache.identity import Identity, identify_content
from nsysmoe.cache.program import program_digest

__all__ = [
    "Cache",
    "Entry",
    "Identity",
    "Stored",
    "cache_folder",
    "held_folder",
    "identify_content",
    "open_cache",
    "program_digest",
    "sweep",
]
