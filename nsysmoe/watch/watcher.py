"""One look after another at everything that is there, and what all of it says now."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsysmoe.errors import MissingDataError, NsysmoeError
from nsysmoe.watch.alerts import Alerts
from nsysmoe.watch.drops import TRACES, Captured, Drops, read_capture, read_dump
from nsysmoe.watch.eplb import EplbState
from nsysmoe.watch.follow import Tail
from nsysmoe.watch.scrape import read_metrics
from nsysmoe.watch.tails import Tails

if TYPE_CHECKING:
    from nsysmoe.watch.alerts import Threshold
    from nsysmoe.watch.profiles import Profiles
    from nsysmoe.watch.routing import Dump, Judging, RoutingState
    from nsysmoe.watch.server import Server

SCHEMA_VERSION = 1
# Of a log in one look after the first.
_SLICE = 64 << 20
# Files that are waiting to be analysed; of more the oldest are passed over.
_MOST_WAITING = 64


@dataclass(frozen=True)
class Watched:
    """What is watched, and how it is judged; what is None is not there.

    Attributes:
        server: Asked for /metrics and its version.
        log: The engine's log.
        drops: A folder of dumps and captures.
        version: vLLM's, where the user tells it.
        window_s: Of the tails of latency.
        nsys: The nsys that exports reports.
    """

    server: Server | None
    log: Path | None
    drops: Path | None
    judging: Judging
    thresholds: tuple[Threshold, ...]
    version: str | None = None
    window_s: float = 300.0
    nsys: str | None = None
    profiles: Profiles | None = None


@dataclass
class _Source:
    """One thing that is read."""

    kind: str
    name: str
    is_up: bool = False
    reads: int = 0
    bad: int = 0
    said: str | None = None

    def worked(self) -> None:
        self.is_up, self.said = True, None
        self.reads += 1

    def failed(self, error: Exception) -> None:
        self.is_up, self.said = False, str(error) or type(error).__name__

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "source": self.name,
            "up": self.is_up,
            "reads": self.reads,
            "bad": self.bad,
            "said": self.said,
        }


@dataclass(frozen=True)
class Snapshot:
    """What all sources say at one moment: JSON values; None where nothing tells.

    Attributes:
        at: Time of day, UTC.
        version: vLLM's.
        sources: ``kind``, ``source``, ``up``, ``reads``, ``bad``, ``said``.
        server: Queue and tails (``tails.Tails.told``).
        eplb: From the log (``eplb.EplbState.told``).
        routing: From dumps (``routing.RoutingState.told``).
        capture: Of the last capture (``drops.Captured.to_dict``).
        profiles: ``taken``, ``failed``; None without a timetable.
        values: What thresholds are on, by ``alerts.METRICS``.
        alerts: Each threshold's state.
    """

    at: str
    version: str | None
    sources: tuple[dict[str, Any], ...]
    server: dict[str, Any] | None
    eplb: dict[str, Any] | None
    routing: dict[str, Any] | None
    capture: dict[str, Any] | None
    profiles: dict[str, Any] | None
    values: dict[str, float | None]
    alerts: tuple[dict[str, Any], ...] = field(default=())

    @property
    def is_firing(self) -> bool:
        """Whether any alert fires."""
        return any(one["state"] == "firing" for one in self.alerts)


def need_prometheus(what: str) -> None:
    """Say what is missing where metrics cannot be read or served.

    Raises:
        MissingDataError: prometheus-client is not installed.
    """
    if find_spec("prometheus_client") is None:
        raise MissingDataError(f"{what} needs prometheus-client; pip install 'nsysmoe[watch]'")


def snapshot(  # noqa: PLR0913 - three sources, and how each is judged
    *,
    url: str | None = None,
    log: str | Path | None = None,
    drops: str | Path | None = None,
    gpus: int | None = None,
    capacity: float = 1.25,
    version: str | None = None,
    alerts: str | Path | None = None,
    nsys: str | None = None,
) -> Snapshot:
    """Look once at what is there: logs to their end, every file of the folder.

    Args:
        url: A server's address.
        log: The engine's log.
        drops: A folder of dumps and captures.
        gpus: Devices that share the experts, in order; None judges experts.
        capacity: Factor of the buffer that overflow is counted against.
        version: vLLM's; None for what the log or the server tells.
        alerts: A file of thresholds; None for the shipped ones.
        nsys: The nsys that exports a report.

    Raises:
        MissingDataError: A server is to be asked and prometheus-client is not installed.
        InputError: The address is none.
        WatchError: The thresholds cannot be used.
    """
    from nsysmoe.watch.alerts import read_thresholds  # noqa: PLC0415
    from nsysmoe.watch.routing import Judging  # noqa: PLC0415 - numpy
    from nsysmoe.watch.server import Server  # noqa: PLC0415

    watched = Watched(
        server=Server(url) if url else None,
        log=Path(log) if log else None,
        drops=Path(drops) if drops else None,
        judging=Judging(gpus, capacity),
        thresholds=read_thresholds(Path(alerts) if alerts else None),
        version=version,
        nsys=nsys,
    )
    watcher = Watcher(watched)
    try:
        return watcher.look(is_once=True)
    finally:
        watcher.close()


class Watcher:
    """Reads what is there; ``look`` again and again, or once."""

    def __init__(self, watched: Watched) -> None:
        from nsysmoe.watch.routing import RoutingState  # noqa: PLC0415 - numpy

        if watched.server is not None:
            need_prometheus("--url")
        self._watched = watched
        self._tails = Tails(watched.window_s)
        self._eplb = EplbState(watched.version)
        self._routing: RoutingState = RoutingState(watched.judging)
        self._capture: Captured | None = None
        self._alerts = Alerts(watched.thresholds)
        self._tail = Tail(watched.log) if watched.log else None
        roots = {"drops": watched.drops, "profiles": watched.profiles and watched.profiles.root}
        self._folders = {kind: Drops(root) for kind, root in roots.items() if root}
        # Captures are read, and profiles taken, beside the looks.
        self._worker = ThreadPoolExecutor(1)
        self._profiling: Future[bool] | None = None
        self._profiler = ThreadPoolExecutor(1)
        self._under_way: list[tuple[str, Path, Future[Dump | Captured]]] = []
        self._sources = {
            kind: _Source(kind, str(name))
            for kind, name in (
                ("server", watched.server and watched.server.name),
                ("log", watched.log),
                *roots.items(),
            )
            if name
        }

    def close(self) -> None:
        """Let go of the workers; a profile that is being taken is stopped."""
        if self._watched.profiles is not None:
            self._watched.profiles.end()
        self._worker.shutdown(wait=False, cancel_futures=True)
        self._profiler.shutdown(wait=True, cancel_futures=True)

    def look(self, *, is_once: bool = False) -> Snapshot:
        """Read what is new and return what all of it says.

        Args:
            is_once: There is no later look: logs are read to their end, files analysed before
                this returns, and alerts do not wait.
        """
        now = time.monotonic()
        self._look_at_server(now)
        self._look_at_log(is_once=is_once)
        self._profile(now)
        for kind, folder in self._folders.items():
            self._look_at_folder(kind, folder, is_once=is_once)
        self._gather(is_once=is_once)
        return self._snapshot(now, is_once=is_once)

    def _look_at_server(self, now: float) -> None:
        server = self._watched.server
        if server is None:
            return
        source = self._sources["server"]
        try:
            scrape = read_metrics(server.metrics())
        except OSError as error:
            source.failed(error)
            return
        if not source.is_up and self._watched.version is None:
            # After a restart it may be another.
            self._eplb.version = server.version() or self._eplb.version
        source.worked()
        source.bad += scrape.bad_lines
        self._tails.add(now, scrape)

    def _look_at_log(self, *, is_once: bool) -> None:
        if self._tail is None:
            return
        source = self._sources["log"]
        try:
            before = -1
            while before < self._eplb.lines:
                before = self._eplb.lines
                for line in self._tail.lines(_SLICE):
                    self._eplb.take(line)
                # What lies there at the start is read whole: alerts are on what is now.
                if not is_once and source.reads:
                    break
        except OSError as error:
            source.failed(error)
            return
        source.worked()
        source.reads, source.bad = self._eplb.lines, self._tail.cut

    def _profile(self, now: float) -> None:
        """Take a profile beside the looks, one at a time."""
        if self._watched.profiles is None:
            return
        with suppress(OSError):
            self._watched.profiles.clear_useless(time.time())
        if self._profiling is None or self._profiling.done():
            self._profiling = self._profiler.submit(self._watched.profiles.take, now)

    def _look_at_folder(self, kind: str, folder: Drops, *, is_once: bool) -> None:
        source = self._sources[kind]
        try:
            fresh = folder.fresh(**({"settle_s": 0.0} if is_once else {}))
        except (OSError, NsysmoeError) as error:
            source.failed(error)
            return
        source.is_up = True
        source.bad += max(0, len(fresh) - _MOST_WAITING)
        for path in fresh[-_MOST_WAITING:]:
            future = self._worker.submit(self._read, path, folder.domain_of(path))
            self._under_way.append((kind, path, future))

    def _read(self, path: Path, domain: str) -> Dump | Captured:
        if path.suffix in TRACES:
            return read_capture(path, self._watched.nsys)
        return read_dump(path, domain)

    def _gather(self, *, is_once: bool) -> None:
        """Take what has been read; files that cannot be used are counted, and named once."""
        waiting = []
        for kind, path, future in self._under_way:
            if not is_once and not future.done():
                waiting.append((kind, path, future))
                continue
            source = self._sources[kind]
            try:
                self._take(path, future.result())
            except (NsysmoeError, OSError) as error:
                source.bad += 1
                source.said = str(error)
                self._give_up(kind, path)
            else:
                source.reads += 1
        self._under_way = waiting

    def _give_up(self, kind: str, path: Path) -> None:
        """Have a profile that cannot be used cleared away; one that is gone already is no loss."""
        if self._watched.profiles is not None and kind == "profiles":
            with suppress(OSError):
                self._watched.profiles.give_up(path)

    def _take(self, path: Path, found: Dump | Captured) -> None:
        if not isinstance(found, Captured):
            self._routing.add(found)
            return
        self._capture = found
        if self._watched.profiles is not None:
            self._watched.profiles.clear(path, found.to_dict()["wait_share"])

    def _snapshot(self, now: float, *, is_once: bool) -> Snapshot:
        server = self._tails.told()
        queue = self._eplb.queue()
        if server is None and queue is not None:
            # A log alone tells the queue every ten seconds.
            server = {"running": queue["running"], "waiting": queue["waiting"],
                      "cache_ratio": queue.get("cache_ratio")}  # fmt: skip
        eplb, routing = self._eplb.told(), self._routing.told()
        capture = self._capture.to_dict() if self._capture else None
        sources = tuple(one.to_dict() for one in self._sources.values())
        values = values_of(sources, server, eplb, routing, capture)
        profiles = self._watched.profiles
        return Snapshot(
            at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            version=self._eplb.version,
            sources=sources,
            server=server,
            eplb=eplb,
            routing=routing,
            capture=capture,
            profiles=({"taken": profiles.taken, "failed": profiles.failed} if profiles else None),
            values=values,
            alerts=tuple(one.to_dict() for one in self._alerts.judge(values, now, is_once=is_once)),
        )


def values_of(
    sources: tuple[dict[str, Any], ...],
    server: dict[str, Any] | None,
    eplb: dict[str, Any] | None,
    routing: dict[str, Any] | None,
    capture: dict[str, Any] | None,
) -> dict[str, float | None]:
    """Return what thresholds are on, by ``alerts.METRICS``; None where not known.

    ``balancedness`` is that of devices, from dumps; the logged one stands in for it only where its
    version takes maxima over ranks. Experts are never as balanced as devices: theirs is none.
    """
    found: dict[str, float | None] = {
        "sources_down": float(sum(not one["up"] for one in sources)),
        **_of_server(server or {}),
        **_of_eplb(eplb),
        **_of_routing(routing),
        "capture_wait_share": capture["wait_share"] if capture else None,
    }
    if found["balancedness"] is None and eplb and eplb["definition"] == "over_ranks":
        found["balancedness"] = found["logged_balancedness"]
    return found


def _of_server(server: dict[str, Any]) -> dict[str, float | None]:
    found = {name: server.get(name) for name in ("running", "waiting", "cache_ratio")}
    found["output_tok_per_s"] = server.get("output_tok_per_s")
    for name in ("ttft", "tpot"):
        told = server.get(name) or {}
        found |= {f"{name}_{share}_s": told.get(f"{share}_s") for share in ("p50", "p95", "p99")}
    found["queue_p99_s"] = (server.get("queue") or {}).get("p99_s")
    return found


def _of_eplb(eplb: dict[str, Any] | None) -> dict[str, float | None]:
    models = eplb["models"] if eplb else []
    return {
        "eplb_countdown": _least([one["countdown"] for one in models]),
        "logged_balancedness": _least([one["balancedness"] for one in models]),
        "since_rearrangement_s": eplb["since_rearrangement_s"] if eplb else None,
    }


def _of_routing(routing: dict[str, Any] | None) -> dict[str, float | None]:
    if routing is None:
        names = ("balancedness", "lowest_layer_balancedness", "dropped_ratio", "overflow_ratio")
        return dict.fromkeys((*names, "drift", "excess_drift", "domain_drift"))
    between = [one["drift"] for one in routing["domain_drift"] if one["drift"] is not None]
    by_layer = [one["balancedness"] for one in routing["layers"]]
    is_known = routing["over"] == "devices"
    drift, by_chance = routing["drift"], routing["drift_by_chance"]
    return {
        "balancedness": routing["balancedness"] if is_known else None,
        "lowest_layer_balancedness": _least(by_layer) if is_known else None,
        "dropped_ratio": routing["dropped_ratio"],
        "overflow_ratio": routing["overflow_ratio"],
        "drift": drift,
        "excess_drift": None if drift is None else max(0.0, drift - (by_chance or 0.0)),
        "domain_drift": max(between, default=None),
    }


def _least(values: list[float | None]) -> float | None:
    return min((value for value in values if value is not None), default=None)
