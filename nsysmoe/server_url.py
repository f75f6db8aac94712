"""The address of a server as a user writes it."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from nsysmoe.errors import InputError

if TYPE_CHECKING:
    from urllib.parse import SplitResult


def server_url(url: str) -> SplitResult:
    """Return the parts of ``http://HOST:PORT``, with any path after it.

    Raises:
        InputError: It is no address, or holds a password; the text does not repeat it.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise InputError("--url must be http://HOST:PORT; its host or port is none") from error
    if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0:
        raise InputError("--url must be http://HOST:PORT or https://HOST:PORT")
    if parts.username or parts.password:
        raise InputError("--url must not hold a password")
    if parts.query or parts.fragment:
        raise InputError("--url must end with the host, the port, or a path")
    return parts
