"""What a replay of requests measured, from its folder."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsysmoe.errors import MissingDataError
from nsysmoe.findings import Finding
from nsysmoe.traffic.folder import Folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from nsysmoe.metrics.serving.latency import Served
    from nsysmoe.traffic.outcome import Outcome
    from nsysmoe.traffic.run import Options

# Beyond it at the 99th percentile the sender, not the server, made requests late.
_LATE_S = 0.01
# Clocks of computers drift by up to about 50 ppm; more is a correction or a sleep.
_DRIFT_RATIO = 200e-6
_DRIFT_S = 0.005
_FEW_FOR_P99 = 100


@dataclass(frozen=True)
class Traffic:
    """What a replay measured; times in s, latencies from the moment a request was due.

    Attributes:
        source: The folder.
        log: The log of requests: ``source``, ``digest``, ``requests``.
        options: How it was replayed.
        model: At the server.
        summary: Of requests that were answered whole: the keys of ``metrics.latency.summary``.
        requests: ``in_log``, ``answered``, ``failed``, ``unsent``, ``attempts``.
        errors: By kind, the most frequent first: ``kind``, ``attempts``, ``requests`` (at the
            last attempt), ``message`` (the first that came).
        goodput: ``limits_ms``, ``requests``, ``ratio`` (of answered and failed),
            ``requests_per_s``; None without limits.
        sender: ``late_p50_s``, ``late_p99_s``, ``late_max_s`` (the sender's own lateness),
            ``queued_p50_s``, ``queued_p99_s``, ``queued_max_s`` (waiting for a place),
            ``held_back``, ``most_waiting``, ``drift_s``.
        sessions: As the manifest has them.
        findings: What to know before believing it.
    """

    source: str
    log: dict[str, Any]
    options: dict[str, Any]
    model: str
    summary: dict[str, Any]
    requests: dict[str, int]
    errors: tuple[dict[str, Any], ...]
    goodput: dict[str, Any] | None
    sender: dict[str, Any]
    sessions: tuple[dict[str, Any], ...]
    findings: tuple[Finding, ...]


def replay(  # noqa: PLR0913 - a log, a folder, and what is asked of them
    requests: str | Path,
    output: str | Path,
    options: Options,
    *,
    limits_ms: Mapping[str, float] | None = None,
    tokenizer: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Traffic:
    """Send a log of requests to a server with its own timing, and say what came of it.

    Args:
        requests: The log.
        output: A folder for the record; one that holds part of this replay is gone on with.
        options: Where and how.
        limits_ms: Limits of goodput by ``ttft``, ``tpot`` and ``e2e``.
        tokenizer: Counts the tokens of logged answers in ShareGPT's form.
        progress: Called with requests finished, and of how many.

    Raises:
        NsysmoeError: The log, the folder or the server cannot be used.
    """
    from nsysmoe.traffic.log import read_log  # noqa: PLC0415
    from nsysmoe.traffic.run import now, send  # noqa: PLC0415

    log = read_log(Path(requests), _counter(tokenizer))
    send(log, options, Path(output), progress)
    found = summarize(output, limits_ms=limits_ms, findings=log.findings)
    _write_run(found, now())
    return found


def summarize(
    folder: str | Path,
    *,
    limits_ms: Mapping[str, float] | None = None,
    findings: Sequence[Finding] = (),
) -> Traffic:
    """Say what a replay measured, from its folder alone.

    Raises:
        MissingDataError: Nothing was sent yet.
        TrafficError: The folder is damaged.
    """
    kept = Folder(Path(folder))
    record = _read_record(kept, kept.replayed())
    if not record.every:
        raise MissingDataError(f"no request of {folder} has ended yet; repeat the replay")
    return _traffic(record, limits_ms or {}, findings)


@dataclass(frozen=True)
class _Record:
    """A folder as read: attempts by kind of error ('' for none), and each request's last one."""

    root: Path
    manifest: dict[str, Any]
    attempts: Counter[str]
    every: tuple[Outcome, ...]


def _read_record(folder: Folder, manifest: dict[str, Any]) -> _Record:
    from nsysmoe.traffic.journal import read_journal  # noqa: PLC0415

    kinds, last = Counter[str](), dict[int, Any]()
    for one in read_journal(folder.journal):
        kinds[one.error or ""] += 1
        last[one.number] = one
    return _Record(folder.root, manifest, kinds, tuple(last[number] for number in sorted(last)))


def _traffic(
    record: _Record, limits_ms: Mapping[str, float], findings: Sequence[Finding]
) -> Traffic:
    from nsysmoe.metrics.serving.latency import summary  # noqa: PLC0415 - numpy

    manifest, every = record.manifest, record.every
    answered = [one for one in every if one.error is None]
    served = served_of(answered)
    wall_s = _wall_s(every)
    counts = {
        "in_log": int(manifest["log"]["requests"]),
        "answered": len(answered),
        "failed": len(every) - len(answered),
        "unsent": int(manifest["log"]["requests"]) - len(every),
        "attempts": sum(record.attempts.values()),
    }
    errors = _errors(record.attempts, every)
    sender = _sender(every, manifest["sessions"])
    told = (
        *findings,
        *_about_rest(counts, manifest["sessions"]),
        *_about_errors(served, counts, errors),
        *_about_sender(sender, wall_s),
        *_about_counts(answered),
    )
    return Traffic(
        source=str(record.root),
        log=manifest["log"],
        options=manifest["options"],
        model=str(manifest["model"]),
        summary=summary(served, wall_s),
        requests=counts,
        errors=errors,
        goodput=_goodput(served, limits_ms, len(every), wall_s) if limits_ms else None,
        sender=sender,
        sessions=tuple(manifest["sessions"]),
        findings=told,
    )


def served_of(answered: Sequence[Outcome]) -> Served:
    """Return answered requests as arrays."""
    import numpy as np  # noqa: PLC0415 - slow to import

    from nsysmoe.metrics.serving.latency import Served  # noqa: PLC0415

    def column(name: str) -> NDArray[np.float64]:
        return np.array([getattr(one, name) for one in answered], dtype=np.float64)

    return Served(
        column("ttft_s"), column("tpot_s"), column("e2e_s"), column("prompt_tokens"),
        column("output_tokens"),
    )  # fmt: skip


def _wall_s(every: Iterable[Outcome]) -> float:
    """Return the time from the first due request to the last end, added up over sessions."""
    ends: dict[int, float] = defaultdict(float)
    for one in every:
        ends[one.session] = max(ends[one.session], one.intended_s + one.e2e_s)
    return sum(ends.values())


def _errors(attempts: Counter[str], every: Sequence[Outcome]) -> tuple[dict[str, Any], ...]:
    lasting = Counter(one.error for one in every if one.error)
    messages = {one.error: one.message for one in reversed(every) if one.error}
    return tuple(
        {
            "kind": kind,
            "attempts": count,
            "requests": lasting.get(kind, 0),
            "message": messages.get(kind),
        }
        for kind, count in attempts.most_common()
        if kind
    )


def _goodput(
    served: Served, limits_ms: Mapping[str, float], ended: int, wall_s: float
) -> dict[str, Any]:
    from nsysmoe.metrics.serving.latency import good  # noqa: PLC0415

    met = int(good(served, {name: limit / 1e3 for name, limit in limits_ms.items()}).sum())
    return {
        "limits_ms": dict(limits_ms),
        "requests": met,
        "ratio": met / ended,
        "requests_per_s": met / wall_s if wall_s else None,
    }


def _sender(every: Sequence[Outcome], sessions: Sequence[dict[str, Any]]) -> dict[str, Any]:
    import numpy as np  # noqa: PLC0415

    from nsysmoe.metrics.serving.latency import percentiles  # noqa: PLC0415

    found: dict[str, Any] = {}
    for name in ("late", "queued"):
        values = np.array([getattr(one, f"{name}_s") for one in every])
        spread = percentiles(values, (50, 99, 100))
        found |= {
            f"{name}_{'max' if key == 'p100' else key}_s": value for key, value in spread.items()
        }
    drifts = [float(one.get("drift_s", 0.0)) for one in sessions]
    return {
        **found,
        "held_back": sum(int(one.get("held_back", 0)) for one in sessions),
        "most_waiting": max((int(one.get("most_waiting", 0)) for one in sessions), default=0),
        "drift_s": max(drifts, key=abs, default=0.0),
    }


def _about_rest(counts: dict[str, int], sessions: Sequence[dict[str, Any]]) -> list[Finding]:
    found = []
    if counts["unsent"]:
        ended = str(sessions[-1].get("ended"))
        why = {
            "away": "the server did not answer any more",
            "interrupted": "it was interrupted",
        }.get(ended, "it was ended from outside")
        found.append(
            Finding(
                "incomplete",
                "warning",
                f"{counts['unsent']:,} of {counts['in_log']:,} requests were not sent: {why}; the "
                "same command goes on with them",
                {"unsent": counts["unsent"], "ended": ended},
            )
        )
    if len(sessions) > 1:
        found.append(
            Finding(
                "resumed",
                "warning",
                f"sent in {len(sessions)} sessions: at each start the server's batches were empty, "
                "and what was under way before was sent again, perhaps out of its prefix cache",
                {"sessions": len(sessions)},
            )
        )
    return found


def _about_errors(
    served: Served, counts: dict[str, int], errors: Sequence[dict[str, Any]]
) -> list[Finding]:
    from nsysmoe.metrics.serving.latency import with_unanswered  # noqa: PLC0415

    found = []
    if counts["failed"]:
        p99 = with_unanswered(served.ttft_s, counts["failed"], 99)
        tail = "is unbounded" if p99 is None else f"is {p99 * 1e3:,.1f} ms"
        share = counts["failed"] / (counts["failed"] + counts["answered"])
        kinds = ", ".join(f"{one['kind']} {one['requests']:,}" for one in errors if one["requests"])
        found.append(
            Finding(
                "failed_requests",
                "warning",
                f"{counts['failed']:,} requests ({share:.1%}) failed ({kinds}) and are in no "
                f"percentile; counted as never answered, the 99th of TTFT {tail}; --retry-failed "
                "sends them again",
                {"failed": counts["failed"], "ttft_p99_with_failed_s": p99},
            )
        )
    if 0 < counts["answered"] < _FEW_FOR_P99:
        found.append(
            Finding(
                "few_requests",
                "info",
                f"the 99th percentile of {counts['answered']} requests is about their slowest one",
                {"answered": counts["answered"]},
            )
        )
    return found


def _about_sender(sender: dict[str, Any], wall_s: float) -> list[Finding]:
    found = []
    if (late := sender["late_p99_s"]) is not None and late > _LATE_S:
        found.append(
            Finding(
                "late_sender",
                "warning",
                f"the sender itself was late by {late * 1e3:,.1f} ms at the 99th percentile: it is "
                "part of every latency here; send from a machine with idle cores",
                {"late_p99_s": late},
            )
        )
    if sender["held_back"]:
        found.append(
            Finding(
                "back_pressure",
                "info",
                f"--max-concurrency held {sender['held_back']:,} requests back, up to "
                f"{sender['most_waiting']:,} at once; the time is part of their latency",
                {"held_back": sender["held_back"], "most_waiting": sender["most_waiting"]},
            )
        )
    if abs(drift := sender["drift_s"]) > max(_DRIFT_S, _DRIFT_RATIO * wall_s):
        found.append(
            Finding(
                "clock_moved",
                "info",
                f"the time of day moved by {drift:+.3f} s against the steady clock that times are "
                "taken from: set meanwhile, or the machine slept",
                {"drift_s": drift},
            )
        )
    return found


def _about_counts(answered: Sequence[Outcome]) -> list[Finding]:
    found = []
    if uncounted := sum(not one.counted for one in answered):
        found.append(
            Finding(
                "uncounted_tokens",
                "warning",
                f"the server did not count the tokens of {uncounted:,} requests: events of their "
                "streams stand for tokens",
                {"requests": uncounted},
            )
        )
    if short := sum(one.output_tokens < one.asked_tokens for one in answered):
        found.append(
            Finding(
                "short_answers",
                "warning",
                f"{short:,} answers are shorter than asked for: the server ends them earlier than "
                "the log did, and carries less load",
                {"requests": short},
            )
        )
    return found


def _write_run(found: Traffic, ended: str) -> None:
    """Write run.json beside the journal."""
    folder = Folder(Path(found.source))
    last = folder.last_outcomes()
    record = {
        "schema_version": 1,
        "vllm": (folder.manifest() or {}).get("vllm"),
        "started": found.sessions[0].get("started"),
        "ended": ended,
        "args": {**found.options, "model": found.model},
        "prompts": {"digest": found.log["digest"], "count": found.log["requests"]},
        "replay": {
            "requests": found.requests,
            "errors": list(found.errors),
            "goodput": found.goodput,
            "sender": found.sender,
        },
    }
    folder.write_run(record, found.summary, (last[number] for number in sorted(last)))


def _counter(tokenizer: str | None) -> Callable[[str], int] | None:
    if tokenizer is None:
        return None
    from nsysmoe.workload.tokenizers import tokenizer_of  # noqa: PLC0415

    chosen = tokenizer_of(tokenizer)
    return lambda text: len(chosen.encode([text]).stream)
