"""Answers kept between processes: named by what they came from, published whole, bounded."""

from nsysmoe.cache.folder import Cache, Entry, Stored, cache_folder, open_cache
from nsysmoe.cache.held import held_folder, sweep
from nsysmoe.cache.identity import Identity, identify_content
from nsysmoe.cache.program import program_digest
from nsysmoe.cache.temporary import clear_left, left_folders, own_folder

__all__ = [
    "Cache",
    "Entry",
    "Identity",
    "Stored",
    "cache_folder",
    "clear_left",
    "held_folder",
    "identify_content",
    "left_folders",
    "open_cache",
    "own_folder",
    "program_digest",
    "sweep",
]
