"""``nsysmoe watch``."""

from __future__ import annotations

import re
import signal
import sys
import time
from itertools import chain
from typing import TYPE_CHECKING, Any

import click

from nsysmoe.cli.exits import HUNG_UP, INTERRUPTED, TERMINATED
from nsysmoe.cli.options import FILE, Finite, output_options
from nsysmoe.cli.progress import working

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path
    from types import FrameType

    from nsysmoe.cli.options import Printer
    from nsysmoe.watch.watcher import Snapshot, Watcher

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)?")
_UNITS = {"ms": 1e-3, None: 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
_FIRING_EXIT = 3
_STATUS = {
    signal.SIGINT: INTERRUPTED,
    signal.SIGTERM: TERMINATED,
    signal.SIGHUP: HUNG_UP,
}


# Generic in newer versions of click only.
class _Duration(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """10m, 2s, 500ms."""

    name = "duration"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:  # noqa: ARG002
        return "10m|2s|500ms"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if isinstance(value, float):
            return value
        found = _DURATION.fullmatch(str(value))
        seconds = float(found[1]) * _UNITS[found[2]] if found else 0.0
        if seconds <= 0:
            self.fail(f"{value!r} is no time, such as 10m, 2s or 500ms", param, ctx)
        return seconds


# Generic in newer versions of click only.
class _Address(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """HOST:PORT, or a port of this machine."""

    name = "address"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:  # noqa: ARG002
        return "[HOST:]PORT"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, int]:
        if isinstance(value, tuple):
            return value
        host, _, port = str(value).rpartition(":")
        if not port.isdecimal() or int(port) > 65535:
            self.fail(f"{value!r} is no address, such as 9460 or 127.0.0.1:9460", param, ctx)
        return host.strip("[]") or "127.0.0.1", int(port)


@click.command("watch")
@click.option("--url", help="The server, http://HOST:PORT: its /metrics and version are read.")
@click.option("--log", type=FILE, help="The engine's log.")
@click.option("--drops", type=FILE, help="Folder for dumps of routing and short captures.")
@click.option("--gpus", type=click.IntRange(min=1), help="GPUs that share the experts.")
@click.option("--map", "map_", type=FILE, help="Where experts live.  [default: in order]")
@click.option(
    "--capacity",
    type=Finite(min=0, min_open=True),
    default=1.25,
    show_default=True,
    help="Capacity factor that overflow is counted against.",
)
@click.option(
    "--drift-over",
    type=click.IntRange(min=1),
    default=16,
    show_default=True,
    help="Dumps of a domain that a new one of it is compared with.",
)
@click.option("--vllm-version", help="What the log is of.  [default: as it or the server tells]")
@click.option("--alerts", type=FILE, help="TOML with thresholds.  [default: shipped ones]")
@click.option(
    "--interval", type=_Duration(), default="5s", show_default=True, help="Between looks."
)
@click.option(
    "--window", type=_Duration(), default="5m", show_default=True, help="Of latencies' tails."
)
@click.option("--listen", type=_Address(), help="Serve Prometheus here, such as 9460.")
@click.option("--profile-every", type=_Duration(), help="Ask the server for short profiles.")
@click.option(
    "--for",
    "profile_for",
    type=_Duration(),
    default="2s",
    show_default=True,
    help="How long each profile is.",
)
@click.option(
    "--profiles", "profile_root", type=FILE, help="Folder where the server's nsys leaves them."
)
@click.option(
    "--keep",
    type=click.Choice(["worst", "none", "all"]),
    default="worst",
    show_default=True,
    help="Which of these profiles stay there; others are deleted once analysed.",
)
@click.option("--nsys", metavar="PATH", help="The nsys that exports a .nsys-rep.")
@click.option("--once", is_flag=True, help="Look once, print, and exit 3 where an alert fires.")
@output_options
def command(printer: Printer, once: bool, **given: Any) -> None:
    """Follow a server: balance of experts, EPLB, queue, tails, and alerts on them.

    \b
    Example:
      nsysmoe watch --url http://127.0.0.1:8000 --log engine.log --drops dumps/ --listen 9460
      nsysmoe watch --log engine.log --once --format json
    """
    from nsysmoe.reports.pages.experiments.watch import watch_page

    if not any(given[name] for name in ("url", "log", "drops")):
        raise click.UsageError("nothing to watch: give --url, --log or --drops")
    watcher = _watcher(given)
    try:
        if once:
            if given["profile_every"]:
                raise click.UsageError("--profile-every does not go with --once")
            with working("Reading what is there"):
                found = watcher.look(is_once=True)
            printer.show(watch_page(found), [given["log"]] if given["log"] else [])
            sys.exit(_FIRING_EXIT if found.is_firing else 0)
        if printer.output is not None or printer.format_ is not None:
            raise click.UsageError("--format and -o go with --once")
        heard = _end_by_itself()
        looks = _looks(watcher, given["interval"], _exporter(given["listen"]), heard)
        with working("Reading what is there"):
            first = next(looks)
        _follow(chain([first], looks))
    finally:
        watcher.close()


def _end_by_itself() -> list[int]:
    """Let signals end the command as Ctrl-C does: a profile that is being taken is stopped.

    That may take longer than other commands have for their end. What is ignored stays so.

    Returns:
        The exit status that each signal asked for: Python drops what a handler raises in the
        middle of a clean-up of its own (of an import, of a weak reference), so it is asked again.
    """
    heard: list[int] = []

    def end(number: int, _frame: FrameType | None) -> None:
        heard.append(_STATUS[signal.Signals(number)])
        sys.exit(heard[0])

    for number in _STATUS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, end)
    return heard


def _watcher(given: dict[str, Any]) -> Watcher:
    from nsysmoe.watch.alerts import read_thresholds
    from nsysmoe.watch.profiles import Profiles, Timetable
    from nsysmoe.watch.server import Server
    from nsysmoe.watch.watcher import Watched, Watcher

    server = Server(given["url"]) if given["url"] else None
    profiles = None
    if given["profile_every"]:
        if server is None or given["profile_root"] is None:
            raise click.UsageError("--profile-every needs --url, and --profiles where they arrive")
        if given["drops"] is not None and _lies_in(given["profile_root"], given["drops"]):
            raise click.UsageError("--profiles lies in --drops: each profile would be read twice")
        if given["profile_for"] >= given["profile_every"]:
            raise click.BadParameter("longer than --profile-every", param_hint="--for")
        timetable = Timetable(given["profile_every"], given["profile_for"], given["keep"])
        profiles = Profiles(server, timetable, given["profile_root"])
    return Watcher(
        Watched(
            server=server,
            log=given["log"],
            drops=given["drops"],
            judging=_judging(given),
            thresholds=read_thresholds(given["alerts"]),
            version=given["vllm_version"],
            window_s=given["window"],
            nsys=given["nsys"],
            profiles=profiles,
        )
    )


def _lies_in(folder: Path, drops: Path) -> bool:
    """Tell whether a folder is one that files are dropped into, or a domain of it."""
    return drops.resolve() in {folder.resolve(), folder.resolve().parent}


def _judging(given: dict[str, Any]) -> Any:
    from nsysmoe.watch.routing import Judging

    if given["map_"] is None:
        return Judging(given["gpus"], given["capacity"], recent=given["drift_over"])
    from nsysmoe.routing.loads import read_map

    map_, told = read_map(given["map_"])
    gpus = given["gpus"] or told
    if gpus is None:
        raise click.UsageError("--map does not tell how many GPUs there are: give --gpus")
    return Judging(gpus, given["capacity"], map_, given["drift_over"])


def _exporter(address: tuple[str, int] | None) -> Callable[[Snapshot], None]:
    """Return what takes each snapshot; it serves nothing without an address."""
    if address is None:
        return lambda _: None
    from nsysmoe.watch.watcher import need_prometheus

    need_prometheus("--listen")
    from nsysmoe.watch.exporter import Exporter, serve

    exporter = Exporter()
    port = serve(exporter, *address)
    click.echo(f"Prometheus: http://{address[0]}:{port}/metrics", err=True)
    return exporter.show


def _looks(
    watcher: Watcher, interval_s: float, show: Callable[[Snapshot], None], heard: list[int]
) -> Iterator[Snapshot]:
    while not heard:
        started = time.monotonic()
        found = watcher.look()
        show(found)
        yield found
        time.sleep(max(0.0, interval_s - (time.monotonic() - started)))
    sys.exit(heard[0])


def _follow(looks: Iterable[Snapshot]) -> None:
    """Draw each look on a terminal; elsewhere say which alerts began and ended, a line each."""
    from rich.console import Console
    from rich.live import Live

    from nsysmoe.reports.formats.as_table import drawn
    from nsysmoe.reports.pages.experiments.watch import live_page

    if not sys.stdout.isatty():
        _say_changes(looks)
        return
    console = Console()
    with Live(console=console, auto_refresh=False, screen=True, vertical_overflow="crop") as live:
        for found in looks:
            live.update(drawn(live_page(found), console.width, console.height), refresh=True)


def _say_changes(looks: Iterable[Snapshot]) -> None:
    """Say which alerts begin and end, and why a source, or a profile, fails: once each."""
    from nsysmoe.reports.escape import visible

    states: dict[str, str] = {}
    failures: dict[str, str | None] = {}
    for found in looks:
        for name, said in _failures(found):
            if said != failures.get(name) and said is not None:
                click.echo(visible(f"{found.at} {name}: {said}"), err=True)
            failures[name] = said
        for one in found.alerts:
            was, now = states.get(one["name"], "ok"), one["state"]
            states[one["name"]] = now
            if (was == "firing") != (now == "firing"):
                told = f"{found.at} {one['severity']} {one['name']} {now} ({one['value']})"
                click.echo(visible(f"{told}: {one['summary']}"))


def _failures(found: Snapshot) -> Iterator[tuple[str, str | None]]:
    for one in found.sources:
        yield one["source"], one["said"]
    if found.profiles is not None:
        yield "profile", found.profiles["failed"]
