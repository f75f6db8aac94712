"""An engine on a Ray cluster that is there already and shares a file system (vLLM's own)."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import socket
import sys
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Any, TextIO

from nsysmoe.engines.engine import RETRIES, Job, Result, outcome, results
from nsysmoe.errors import InputError, NsysmoeError
from nsysmoe.resources import resources
from nsysmoe.stopping import stoppable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from nsysmoe.resources import Limits


# Ray itself asks a cluster that does not answer for a quarter of an hour.
_PATIENCE_S = 5
_MOST_PORT = 65535


class RayCluster:
    """Jobs on the nodes of a Ray cluster; Ray does those again whose worker was lost.

    Every node must have nsysmoe in the Python that its Ray runs, and see the files under the same
    paths.

    Args:
        address: As ``ray.init`` takes it: ``auto``, ``host:port`` or ``ray://host:port``.

    Raises:
        InputError: Ray is not installed.
    """

    def __init__(self, address: str) -> None:
        try:
            import ray  # noqa: PLC0415 - takes seconds
        except ImportError as error:
            raise InputError(
                "--engine ray needs Ray; install it: pip install 'nsysmoe[ray]'"
            ) from error
        self._ray = ray
        self._address = address

    def share(self, jobs: int, limits: Limits) -> Limits:  # noqa: ARG002 - of the interface
        """Return what each job may use: all, of the one core that Ray sets aside for it.

        Which jobs share a node is Ray's to decide: memory is for each of them.
        """
        return replace(limits, threads=1)

    def map(self, task: Callable[[Job], Result], jobs: Sequence[Job]) -> list[Result]:
        """Do the task for every job, as ``Engine`` has it.

        Raises:
            InputError: There is no such cluster.
        """
        with _connections.to(self._ray, self._address):
            remote: Any = self._ray.remote(max_retries=RETRIES, num_cpus=1)(outcome)
            waiting: list[Any] = [remote.remote(task, job, resources()) for job in jobs]
            cancel = partial(self._cancel, waiting)
            with ExitStack() as failing, stoppable(cancel):
                failing.callback(cancel)
                try:
                    found: list[Result | NsysmoeError] = self._ray.get(waiting)
                except self._ray.exceptions.RayError as error:
                    raise InputError(
                        f"Ray could not do the work ({_reason(error)}); see that every node has "
                        "nsysmoe and memory for one file a core"
                    ) from error
                failing.pop_all()
        return results(found)

    def _cancel(self, waiting: Sequence[Any]) -> None:
        """End the workers that do jobs: one that waits in DuckDB or SQLite hears of nothing."""
        for reference in waiting:
            # A cluster that is gone says so in many ways: none may take the place of the reason.
            with suppress(Exception):
                self._ray.cancel(reference, force=True)


class _Connections:
    """The process's one connection to Ray, for as long as any thread works on it.

    Ray says on stdout when it loses a worker, from a thread of its own: meanwhile stdout is
    stderr, so that a report in a pipe stays whole.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._users = 0
        self._stdout: TextIO | None = None

    @contextmanager
    def to(self, ray: Any, address: str) -> Iterator[None]:
        self._open(ray, address)
        try:
            yield
        finally:
            self._close(ray)

    def _open(self, ray: Any, address: str) -> None:
        with self._lock:
            if not self._users and not ray.is_initialized():
                self._stdout, sys.stdout = sys.stdout, sys.stderr
                fix = "start one (ray start --head), or name its address with --ray-address"
                try:
                    _knock(address)
                    if address != "auto":
                        # Ray reads its token by itself for a cluster that it found by itself.
                        fix = "if it asks for a token, set RAY_AUTH_MODE=token"
                    with _own_sigterm():
                        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
                except (OSError, ValueError, RuntimeError) as error:
                    self._restore()
                    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                    raise InputError(f"no Ray cluster at {address} ({reason}); {fix}") from error
            self._users += 1

    def _close(self, ray: Any) -> None:
        with self._lock:
            self._users -= 1
            if not self._users and self._stdout is not None:
                ray.shutdown()
                self._restore()

    def _restore(self) -> None:
        assert self._stdout is not None  # noqa: S101 - it was put there when ours was opened
        sys.stdout, self._stdout = self._stdout, None


_connections = _Connections()


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep this process's end by SIGTERM: Ray's own says nothing, or prints a stack.

    In the main thread Ray puts a handler of Python there, and in every thread one of C, which no
    other thread than the main one can take back through ``signal``.
    """
    of_c = ctypes.pythonapi
    of_c.PyOS_getsig.restype = ctypes.c_void_p
    of_c.PyOS_setsig.argtypes = (ctypes.c_int, ctypes.c_void_p)
    of_python, handler = signal.getsignal(signal.SIGTERM), of_c.PyOS_getsig(signal.SIGTERM)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) != of_python:
            signal.signal(signal.SIGTERM, of_python)
        of_c.PyOS_setsig(signal.SIGTERM, handler)


def _knock(address: str) -> None:
    """See that somebody listens where a cluster should be; what is no address is left to Ray.

    Raises:
        OSError: Nobody does.
    """
    named = _found() if address == "auto" else address
    host, _, port = named.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal() and int(port) <= _MOST_PORT:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE_S).close()
        except OSError as error:
            reason = error.strerror or str(error)
            raise ConnectionError(f"{named} does not answer: {reason}") from error


def _found() -> str:
    """Return the address that ``auto`` stands for: that of a cluster that died may be left."""
    if named := os.environ.get("RAY_ADDRESS"):
        return named
    try:
        from ray._private.services import (  # noqa: PLC0415 - takes seconds
            canonicalize_bootstrap_address_or_die,
        )
    except ImportError:
        # Not of Ray's public interface; Ray then finds it alone.
        return ""
    return str(canonicalize_bootstrap_address_or_die("auto"))


def _reason(error: Exception) -> str:
    """Return the last line of an error: Ray puts the trace of the worker before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
