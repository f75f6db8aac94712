"""A server as it is now: alerts, queue and tails, EPLB, balance, hot experts, the last capture."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from nsysmoe.reports import numbers
from nsysmoe.reports.document import Column, Document, Row, Table
from nsysmoe.reports.tables import left, right, table

if TYPE_CHECKING:
    from nsysmoe.reports.tables import Values
    from nsysmoe.watch.watcher import Snapshot

SCHEMA_VERSION = 1
_WORST = 5
_DEFINITIONS = {
    "over_ranks": "mean / max over ranks",
    "over_layers": "over layers: says nothing of ranks (vLLM before 0.28)",
    "unknown": "definition unknown: give --vllm-version",
}
_SHARES = ("p50", "p95", "p99")


def watch_page(found: Snapshot) -> Document:
    """Return a snapshot as a page."""
    tables = (_alerts(found.alerts), _sources(found.sources), *_values(found))
    return Document(
        title="nsysmoe watch",
        lead=(_lead(found),),
        tables=tables,
        data={"schema_version": SCHEMA_VERSION, "firing": found.is_firing, **asdict(found)},
        records=found.alerts,
        notes=tuple(_notes(found)),
    )


def live_page(found: Snapshot) -> Document:
    """Return a snapshot as a page for a screen: of alerts and sources only what is not well."""
    alerts = tuple(one for one in found.alerts if one["state"] in {"firing", "pending"})
    sources = tuple(one for one in found.sources if not one["up"] or one["said"])
    troubled = (
        *([_alerts(alerts)] if alerts else []),
        *([_sources(sources)] if sources else []),
    )
    read = ", ".join(f"{one['source']} {one['reads']:,}" for one in found.sources)
    return Document(
        title="nsysmoe watch",
        lead=(_lead(found), f"Read: {read}.", *_notes(found)),
        tables=(*troubled, *_values(found)),
        data={},
        records=(),
    )


def _values(found: Snapshot) -> list[Table]:
    return [
        *_server(found.server),
        *_eplb(found.eplb),
        *_routing(found.routing),
        *_capture(found.capture),
    ]


def _lead(found: Snapshot) -> str:
    firing = [one["name"] for one in found.alerts if one["state"] == "firing"]
    version = f", vLLM {found.version}" if found.version else ""
    if not firing:
        return f"{found.at}{version}: no alert fires."
    return f"{found.at}{version}: {len(firing)} firing: {', '.join(firing)}."


def _alerts(alerts: tuple[dict[str, Any], ...]) -> Table:
    columns = (
        left("Alert", "name"),
        left("State", "state"),
        right("Value", "value"),
        right("Limit", _limit, str),
        left("Says", lambda row: row["summary"] if row["state"] in {"firing", "pending"} else ""),
    )
    return table("Alerts", alerts, columns)


def _limit(row: Values) -> str:
    return f"< {row['below']:g}" if row["above"] is None else f"> {row['above']:g}"


def _sources(sources: tuple[dict[str, Any], ...]) -> Table:
    columns = (
        left("Source", "source"),
        left("", lambda row: "up" if row["up"] else "down"),
        right("Read", "reads", numbers.count),
        right("Bad", "bad", numbers.count),
        left("Said", lambda row: (row["said"] or "")[:120]),
    )
    return table("Sources", sources, columns)


def _server(server: dict[str, Any] | None) -> list[Table]:
    if server is None:
        return []
    columns = (Column("Running"), Column("Waiting"), Column("KV cache"), Column("Tokens/s"))
    row = Row(
        (
            _whole(server["running"]),
            _whole(server["waiting"]),
            numbers.share(server["cache_ratio"]),
            numbers.decimal(server.get("output_tok_per_s")),
        )
    )
    tables = [Table("Queue", columns, (row,))]
    latencies = [
        Row((title, *(numbers.seconds_as_ms(server[name][f"{share}_s"]) for share in _SHARES)))
        for name, title in (("ttft", "TTFT"), ("tpot", "TPOT"), ("queue", "queued"))
        if server.get(name)
    ]
    if latencies:
        window = server["window_s"]
        over = "since the server began" if window is None else f"over the last {window:,.0f} s"
        heads = (Column("Latency (ms)", "left"), *map(Column, _SHARES))
        tables.append(Table(f"Tails, {over}", heads, tuple(latencies)))
    return tables


def _eplb(eplb: dict[str, Any] | None) -> list[Table]:
    if eplb is None:
        return []
    columns = (
        left("Model", lambda row: row["model"][:40] or "not told"),
        right("Countdown", "countdown", numbers.count),
        right("Balancedness", "balancedness"),
        right("Median", "recent_p50"),
        right("Lowest", "lowest"),
        right("Lines", "lines", numbers.count),
    )
    caption = (
        f"EPLB by its log, {_DEFINITIONS[eplb['definition']]}; {eplb['rearrangements']:,} "
        f"rearrangements in {eplb['rearranging_s']:,.2f} s"
    )
    return [table(caption, eplb["models"], columns)]


def _routing(routing: dict[str, Any] | None) -> list[Table]:
    if routing is None:
        return []
    known = [row for row in routing["layers"] if row["balancedness"] is not None]
    worst = sorted(known, key=lambda row: row["balancedness"])[:_WORST]
    columns = (
        right("Layer", "layer", str),
        right("Balancedness", "balancedness"),
        left("Hottest experts", "hottest", _hottest),
    )
    caption = (
        f"Worst layers of {routing['source']}, over {routing['over']}: balancedness of all "
        f"{numbers.decimal(routing['balancedness'])}; beyond capacity "
        f"{routing['capacity_factor']:g}: {numbers.share(routing['dropped_ratio'])} of choices"
    )
    if routing["drift"] is not None:
        caption += (
            f"; drift from its domain's recent mean {numbers.decimal(routing['drift'])}, by chance "
            f"{numbers.decimal(routing['drift_by_chance'])}"
        )
    return [table(caption, worst, columns), *_domains(routing)]


def _domains(routing: dict[str, Any]) -> list[Table]:
    if len(routing["domains"]) < 2:
        return []
    columns = (
        Column("Domain", "left"), Column("Choices"), Column("Hottest (layer:expert)", "left"),
        Column("Farthest from", "left"), Column("Drift"), Column("By chance"),
        Column("Moves most", "left"),
    )  # fmt: skip
    rows = []
    for one in routing["domains"]:
        pairs = [row for row in routing["domain_drift"] if one["domain"] in row["domains"]]
        far = max(pairs, key=lambda row: row["drift"] or 0.0)
        other = next((name for name in far["domains"] if name != one["domain"]), "")
        rows.append(
            Row(
                (
                    one["domain"] or "not told",
                    numbers.count(one["choices"]),
                    ", ".join(f"{_place(row)} ({row['share']:.1%})" for row in one["hottest"]),
                    other or "not told",
                    numbers.decimal(far["drift"]),
                    numbers.decimal(far["by_chance"]),
                    _moves(far, one["domain"]),
                )
            )
        )
    return [Table("Domains", columns, tuple(rows))]


def _capture(capture: dict[str, Any] | None) -> list[Table]:
    if capture is None:
        return []
    columns = (
        Column("Capture", "left"), Column("Wait (ms)"), Column("Transfer (ms)"),
        Column("Waiting"),
    )  # fmt: skip
    row = Row(
        (
            capture["source"],
            numbers.milliseconds(capture["wait_ns"]),
            numbers.milliseconds(capture["transfer_ns"]),
            numbers.share(capture["wait_share"]),
        )
    )
    return [Table("Last capture: communication over ranks", columns, (row,))]


def _notes(found: Snapshot) -> list[str]:
    notes = []
    if found.server is not None and "inter_token" in (found.server.get("tpot_metric") or ""):
        notes.append("TPOT: the server tells the time between tokens, not a mean a request.")
    if found.profiles is not None:
        failed = (
            f"; the last failed: {found.profiles['failed']}" if found.profiles["failed"] else ""
        )
        notes.append(f"{found.profiles['taken']} profiles taken{failed}.")
    return notes


def _hottest(rows: list[dict[str, Any]]) -> str:
    return ", ".join(f"{row['expert']} ({row['share']:.1%})" for row in rows)


def _place(row: dict[str, Any]) -> str:
    return f"{row['layer']}:{row['expert']}"


def _moves(pair: dict[str, Any], domain: str) -> str:
    """Return the expert whose share differs most: here, and in the other domain."""
    if not pair["moved"]:
        return ""
    one = pair["moved"][0]
    here, there = one["shares"] if pair["domains"][0] == domain else reversed(one["shares"])
    return f"{_place(one)}: {here:.1%}, there {there:.1%}"


def _whole(value: float | None) -> str:
    return numbers.count(None if value is None else round(value))
