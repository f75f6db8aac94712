"""A replay from a log to a folder; the same call goes on where an earlier one ended."""

from __future__ import annotations

import asyncio
import fcntl
import os
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from nsysmoe.errors import MissingDataError, TrafficError
from nsysmoe.server_url import server_url
from nsysmoe.traffic import schedule
from nsysmoe.traffic.folder import MANIFEST, SCHEMA_VERSION, Folder
from nsysmoe.traffic.journal import Journal

if TYPE_CHECKING:
    from array import array
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from nsysmoe.traffic.client import Target
    from nsysmoe.traffic.log import RequestLog
    from nsysmoe.traffic.outcome import Outcome
    from nsysmoe.traffic.sender import Session


@dataclass(frozen=True)
class Options:
    """How a log is replayed.

    Attributes:
        url: ``http://HOST:PORT``.
        speed: How many times faster than the log.
        most_at_once: Requests under way at once; None for as many as are due.
        rate: Requests a second, where the log tells no times (Poisson).
        seed: Of that rate's draws.
        model: The model's name; None for the first that the server lists.
        output_tokens: Asked for where the log tells no length.
        ignore_eos: Whether lengths are the log's, also past an end of text.
        timeout_s: From sending a request to its last token.
        stall_s: Without any byte.
        give_up: Requests in a row that do not reach the server before sending stops.
        retry_failed: Send again what ended with an error.
        key_variable: Environment variable with the bearer token.
    """

    url: str
    speed: float = 1.0
    most_at_once: int | None = None
    rate: float | None = None
    seed: int = 0
    model: str | None = None
    output_tokens: int | None = None
    ignore_eos: bool = True
    timeout_s: float = 600.0
    stall_s: float = 120.0
    give_up: int = 100
    retry_failed: bool = False
    key_variable: str | None = None

    def fixed(self) -> dict[str, Any]:
        """Return what may not differ when a replay is resumed."""
        left_out = {"give_up", "retry_failed", "key_variable", "timeout_s", "stall_s", "url"}
        return {key: value for key, value in asdict(self).items() if key not in left_out}


def now() -> str:
    """Return the time of day, as run.json writes it."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def check_url(url: str) -> str:
    """Return a server's address without its last slash or ``/v1``.

    Raises:
        InputError: It is no address, or holds a password.
    """
    server_url(url)
    return url.rstrip("/").removesuffix("/v1")


def send(
    log: RequestLog,
    options: Options,
    root: Path,
    progress: Callable[[int, int], None] | None = None,
) -> Session | None:
    """Send what a folder lacks of a log; return None where it lacks nothing.

    Args:
        log: The requests.
        options: How.
        root: The folder; made where there is none.
        progress: Called with requests finished, and of how many.

    Raises:
        TrafficError: The folder holds another replay, or the server cannot be asked.
        MissingDataError: Times or lengths are not known.
    """
    if find_spec("aiohttp") is None:
        raise MissingDataError("replay needs aiohttp; pip install 'nsysmoe[replay]'")
    arrivals = _arrivals(log, options)
    folder = Folder(root)
    manifest = _checked(folder, log, options)
    # The manifest comes first: a folder with a lock alone would look like something else.
    folder.write_manifest(manifest)
    with _alone(folder):
        done = folder.last_outcomes()
        pending = [
            number
            for number in range(len(log))
            if number not in done or (options.retry_failed and done[number].error)
        ]
        if not pending:
            return None
        due = schedule.intended(arrivals, pending, options.speed)
        return _Replay(folder, manifest, log, options).run(due, progress)


@dataclass
class _Replay:
    """A folder with what is sent into it."""

    folder: Folder
    manifest: dict[str, Any]
    log: RequestLog
    options: Options

    def run(
        self, due: list[tuple[int, float]], progress: Callable[[int, int], None] | None
    ) -> Session:
        """Send one session, which the manifest tells of before it begins and after it has ended."""
        from nsysmoe.traffic.sender import Plan, send_all  # noqa: PLC0415 - an extra

        target = self._target()
        sessions = self.manifest["sessions"]
        # What stays where nothing can be written any more.
        number, begun = len(sessions) + 1, now()
        sessions.append({"number": number, "started": begun, "ended": "killed", "due": len(due)})
        self.folder.write_manifest(self.manifest)
        done = len(self.log) - len(due)
        plan = Plan(len(sessions), self.options.most_at_once, self.options.give_up)
        with Journal(self.folder.journal) as journal:

            def keep(outcome: Outcome) -> None:
                nonlocal done
                journal.add(outcome)
                done += 1
                if progress is not None:
                    progress(done, len(self.log))

            found = send_all(self.log, due, target, plan, keep)
        sessions[-1] |= found.to_dict()
        self.folder.write_manifest(self.manifest)
        return found

    def _target(self) -> Target:
        from nsysmoe.traffic.client import Target, ask_model, ask_version  # noqa: PLC0415

        options = self.options
        key, url = _key(options), check_url(options.url)
        # First of all: requests that a server which is away cannot answer are not sent.
        self.manifest["vllm"] = asyncio.run(ask_version(url, key))
        if self.manifest["model"] is None:
            self.manifest["model"] = options.model or asyncio.run(ask_model(url, key))
        return Target(
            url=url,
            model=self.manifest["model"],
            output_tokens=options.output_tokens,
            ignore_eos=options.ignore_eos,
            timeout_s=options.timeout_s,
            stall_s=options.stall_s,
            key=key,
        )


def _arrivals(log: RequestLog, options: Options) -> array[float]:
    if options.rate is not None:
        return schedule.poisson(len(log), options.rate, options.seed)
    if log.arrivals is None:
        raise MissingDataError(
            f"{log.source} does not tell when requests came; give --rate REQUESTS_A_SECOND"
        )
    return log.arrivals


def _checked(folder: Folder, log: RequestLog, options: Options) -> dict[str, Any]:
    """Return the manifest of a folder that may take this replay.

    Raises:
        TrafficError: It holds another.
        MissingDataError: A length is not known.
    """
    found = folder.manifest()
    fixed = options.fixed()
    if found is None:
        if options.output_tokens is None:
            _check_lengths(log)
        return {
            "schema_version": SCHEMA_VERSION,
            "log": {"source": log.source, "digest": log.digest, "requests": len(log)},
            "options": fixed,
            "model": options.model,
            "sessions": [],
        }
    if found["log"].get("digest") != log.digest:
        raise TrafficError(f"{folder.root} holds a replay of another log; choose another -o")
    other = sorted(key for key in fixed if found["options"].get(key) != fixed[key])
    if other:
        raise TrafficError(
            f"{folder.root} holds a replay with other options ({', '.join(other)}; {MANIFEST} has "
            "them); repeat them to go on with it, or choose another -o"
        )
    return found


def _check_lengths(log: RequestLog) -> None:
    for number in range(len(log)):
        if log.request(number).output_tokens is None:
            raise MissingDataError(
                f"{log.source} does not tell the output length of every request (the first is "
                f"{log.request(number).id}); give --output-tokens N, or --tokenizer for logged "
                "answers"
            )


def _key(options: Options) -> str | None:
    if options.key_variable is None:
        return None
    if not (found := os.environ.get(options.key_variable)):
        raise TrafficError(f"the variable {options.key_variable} is not set")
    return found


@contextmanager
def _alone(folder: Folder) -> Iterator[None]:
    """Hold a folder: two replays into one would mix their requests."""
    with (folder.root / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise TrafficError(f"another replay writes to {folder.root}") from error
        yield
