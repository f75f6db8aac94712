"""A server's own endpoints: /metrics, /version, /start_profile and /stop_profile."""

from __future__ import annotations

import http.client
import json
from typing import TYPE_CHECKING, Any

from nsysmoe.server_url import server_url

if TYPE_CHECKING:
    from collections.abc import Mapping

_ASK_S = 5.0
# Stopping a profile makes every rank write what it has.
_PROFILE_S = 120.0
_LARGEST = 32 << 20


class Server:
    """An address of a server.

    Args:
        url: ``http://HOST:PORT``, with or without ``/metrics`` at its end.

    Raises:
        InputError: It is no address, or holds a password.
    """

    def __init__(self, url: str) -> None:
        parts = server_url(url)
        self._port = parts.port
        self._is_safe = parts.scheme == "https"
        self._host = str(parts.hostname)
        self._prefix = parts.path.rstrip("/").removesuffix("/metrics")
        self.name = f"{parts.scheme}://{parts.netloc}{self._prefix}"

    def metrics(self) -> str:
        """Return the text of /metrics.

        Raises:
            OSError: The server cannot be asked.
        """
        status, text = self._call("GET", "/metrics", _ASK_S)
        if status != 200:
            raise ConnectionError(f"/metrics answered {status}")
        return text

    def version(self) -> str | None:
        """Return vLLM's version; None where the server does not tell."""
        try:
            status, text = self._call("GET", "/version", _ASK_S)
            found: Any = json.loads(text) if status == 200 else None
        except (OSError, ValueError):
            return None
        version = found.get("version") if isinstance(found, dict) else None
        return version[:64] if isinstance(version, str) else None

    def profile(self, what: str) -> None:
        """Start or stop a profile.

        Raises:
            OSError: The server cannot be asked, or was not started for profiles.
        """
        status, text = self._call("POST", f"/{what}_profile", _PROFILE_S)
        if status == 404:
            raise ConnectionError(
                "the server has no profile endpoints: start it under nsys with "
                "--profiler-config.profiler cuda"
            )
        if status != 200:
            raise ConnectionError(f"/{what}_profile answered {status}: {text[:200]}")

    def _call(self, method: str, path: str, timeout_s: float) -> tuple[int, str]:
        kind = http.client.HTTPSConnection if self._is_safe else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=timeout_s)
        headers: Mapping[str, str] = {"Accept": "text/plain, application/json"}
        try:
            connection.request(method, self._prefix + path, headers=headers)
            answer = connection.getresponse()
            data = answer.read(_LARGEST + 1)
            if len(data) > _LARGEST:
                raise ConnectionError(f"{path} answered more than {_LARGEST >> 20} MiB")
            return answer.status, data.decode("utf-8", errors="replace")
        except http.client.HTTPException as error:
            raise ConnectionError(f"{path}: {type(error).__name__}") from error
        finally:
            connection.close()
