"""What rerouting padding did in a model: balance, time, and whether outputs stayed the same."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nsysmoe.errors import InputError
from nsysmoe.findings import Finding
from nsysmoe.routing.padded import (
    BASELINE,
    PADDING,
    REAL,
    REROUTED,
    counts_name,
    read_padded,
    run_name,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from nsysmoe.routing.padded import Padded

    Floats = NDArray[np.float64]

# Rows of a block of a grouped product in prefill, as kernels on Hopper take them.
BLOCK_ROWS = 128
# Keys of run.json that say what was measured.
_HEAD = (
    "model", "is_random", "is_whole", "layers", "experts", "top_k", "hidden_size", "dtype",
    "device", "torch", "transformers", "prompts", "tokenizer", "implementations", "repeats",
)  # fmt: skip


@dataclass(frozen=True)
class PaddingReport:
    """Settings of ``nsysmoe padding run`` side by side.

    Attributes:
        source: The folder.
        model: What was run, and on what.
        rows: One a setting and order: tokens, and for ``real``, ``baseline`` and ``rerouted``
            (null where not measured) ``cv`` over all layers and experts of all batches together,
            ``batch_cv`` (the mean over batches of the same), ``layer_cv`` and
            ``layer_max_over_mean`` (means over layers), and what a kernel gets, means over layers
            of batches: ``active_experts``, ``busiest`` (choices of the busiest expert),
            ``blocks`` (of 128 rows, each of one expert); ``layers``; ``difference``;
            ``accuracy``.
        times: One a setting, order and implementation: medians over batches of the median of
            each, ns; ``change`` with its extremes over batches; ``reroute_share``.
        heat: Choices by layer and expert, [layers][experts], by row and arm.
        sentences: What it comes to.
        findings: What to know before believing it.
    """

    source: str
    model: dict[str, Any]
    rows: tuple[dict[str, Any], ...]
    times: tuple[dict[str, Any], ...]
    heat: tuple[dict[str, list[list[int]]], ...]
    sentences: tuple[str, ...]
    findings: tuple[Finding, ...]


def padding_report(folder: str | Path) -> PaddingReport:
    """Read the folder of ``nsysmoe padding run`` and put its settings side by side.

    Raises:
        InputError: The folder is of something else, or damaged.
    """
    padded = read_padded(Path(folder))
    runs = sorted(padded.record["runs"], key=lambda run: bool(run["sorted"]))
    try:
        rows = [_row(padded, run) for run in runs]
        times = [one for run in runs for one in _times(run)]
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise InputError(f"{folder}: run.json tells no {error}; run it again") from error
    model = {key: padded.record.get(key) for key in _HEAD}
    return PaddingReport(
        source=str(folder),
        model=model,
        rows=tuple(rows),
        times=tuple(times),
        heat=tuple(_heat(padded, run) for run in runs),
        sentences=tuple(_sentences(rows, times)),
        findings=tuple(_findings(model, rows)),
    )


def _row(padded: Padded, run: dict[str, Any]) -> dict[str, Any]:
    real = sum(batch["real"] for batch in run["batches"])
    padding = sum(batch["padding"] for batch in run["batches"])
    counts = {arm: _loads(padded, run, arm) for arm in run["arms"]}
    counts = {"real": _counts(padded, run, BASELINE, REAL).astype(float), **counts}
    return {
        "run": run_name(run["setting"], is_sorted=run["sorted"]),
        "setting": run["setting"],
        "sorted": bool(run["sorted"]),
        "batches": len(run["batches"]),
        "real_tokens": real,
        "padding_tokens": padding,
        "padding_share": padding / (real + padding),
        **{
            name: _balance(counts[name]) if name in counts else None
            for name in ("real", BASELINE, REROUTED)
        },
        "layers": _by_layer(counts),
        "difference": run.get("difference"),
        "accuracy": run.get("accuracy"),
    }


def _balance(loads: Floats) -> dict[str, float | None]:
    """Measure loads [batches, layers, experts]."""
    from nsysmoe.metrics.routed_load.load_balance import known, max_over_mean, mean_known, variation  # noqa: PLC0415

    whole = loads.sum(axis=0)
    return {
        "cv": known(variation(whole.reshape(-1))),
        "batch_cv": mean_known(variation(loads.reshape(len(loads), -1))),
        "layer_cv": mean_known(variation(whole)),
        "layer_max_over_mean": mean_known(max_over_mean(whole)),
        "active_experts": float((loads > 0).sum(axis=-1).mean()),
        "busiest": float(loads.max(axis=-1).mean()),
        "blocks": float(np.ceil(loads / BLOCK_ROWS).sum(axis=-1).mean()),
    }


def _by_layer(counts: dict[str, Floats]) -> list[dict[str, Any]]:
    from nsysmoe.metrics.routed_load.load_balance import known, variation  # noqa: PLC0415

    values = {name: variation(loads.sum(axis=0)) for name, loads in counts.items()}
    layers = len(next(iter(values.values())))
    return [
        {"layer": layer, **{f"cv_{name}": known(cvs[layer]) for name, cvs in values.items()}}
        for layer in range(layers)
    ]


def _times(run: dict[str, Any]) -> list[dict[str, Any]]:
    """Put the timed batches of each implementation together."""
    found = []
    for name in dict.fromkeys(one["experts"] for one in run["times"]):
        timed = [one for one in run["times"] if one["experts"] == name]
        before = np.array([np.median(one["baseline_ns"]) for one in timed])
        row = {
            "run": run_name(run["setting"], is_sorted=run["sorted"]),
            "experts": name,
            "batches": len(timed),
            "baseline_ns": float(np.median(before)),
            "rerouted_ns": None,
            "change": None,
            "change_low": None,
            "change_high": None,
            "reroute_share": None,
        }
        found.append({**row, **_rerouted_times(timed, before)} if REROUTED in run["arms"] else row)
    return found


def _rerouted_times(timed: Sequence[dict[str, Any]], before: Floats) -> dict[str, float]:
    after = np.array([np.median(one["rerouted_ns"]) for one in timed])
    changes = after / before - 1
    return {
        "rerouted_ns": float(np.median(after)),
        "change": float(np.median(changes)),
        "change_low": float(changes.min()),
        "change_high": float(changes.max()),
        "reroute_share": float(sum(one["reroute_ns"] for one in timed) / after.sum()),
    }


def _heat(padded: Padded, run: dict[str, Any]) -> dict[str, list[list[int]]]:
    return {arm: _loads(padded, run, arm).sum(axis=0).astype(int).tolist() for arm in run["arms"]}


def _loads(padded: Padded, run: dict[str, Any], arm: str) -> Floats:
    """Return the choices of real tokens and padding together, [batches, layers, experts]."""
    both = _counts(padded, run, arm, REAL) + _counts(padded, run, arm, PADDING)
    return both.astype(float)


def _counts(padded: Padded, run: dict[str, Any], arm: str, which: str) -> NDArray[np.int64]:
    name = run_name(run["setting"], is_sorted=run["sorted"])
    return padded.counts[counts_name(name, arm, which)]


def _sentences(rows: Sequence[dict[str, Any]], times: Sequence[dict[str, Any]]) -> list[str]:
    if not any(row[REROUTED] for row in rows):
        each = "; ".join(
            f"{row['run']} {row['padding_share']:.0%}, CV {_decimal(row[BASELINE]['cv'])} "
            f"({_decimal(row['real']['cv'])} without it)"
            for row in rows
        )
        return [f"Share of padding, and the CV over all experts of all layers: {each}."]
    said = [_balance_sentence([row for row in rows if row["sorted"] is order], order)
            for order in (False, True) if any(row["sorted"] is order for row in rows)]  # fmt: skip
    return [*said, *_time_sentences(times), _harm_sentence(rows)]


def _balance_sentence(rows: Sequence[dict[str, Any]], is_sorted: bool) -> str:
    each = ", ".join(
        f"{row['setting']} {_decimal(row[BASELINE]['cv'])} → {_decimal(row[REROUTED]['cv'])}"
        for row in rows
    )
    shares = [row["padding_share"] for row in rows]
    return (
        f"{'Sorted' if is_sorted else 'Unsorted'}, {min(shares):.0%} to {max(shares):.0%} of "
        f"tokens are padding; rerouting it changes the CV over all experts of all layers: {each}."
    )


def _time_sentences(times: Sequence[dict[str, Any]]) -> list[str]:
    found = []
    for name in dict.fromkeys(row["experts"] for row in times):
        own = [row for row in times if row["experts"] == name]
        changes = [row["change"] for row in own]
        shares = [row["reroute_share"] for row in own]
        found.append(
            f"With {name} rerouting changes the time of a batch by {min(changes):+.1%} to "
            f"{max(changes):+.1%}; by itself it is {min(shares):.1%} to {max(shares):.1%} of it."
        )
    return found


def _harm_sentence(rows: Sequence[dict[str, Any]]) -> str:
    found = [row["difference"] for row in rows]
    if all(one["equal"] for one in found):
        return "Outputs at real tokens are the same, bit for bit, in every batch."
    routes = sum(one["routes"] for one in found)
    changed = sum(one["routes_changed"] for one in found)
    parts = [one["largest"] / one["scale"] for one in found if one["finite"] and one["scale"]]
    return (
        f"Outputs at real tokens differ by at most {max(parts, default=float('nan')):.2g} of the "
        f"largest; {changed:,} of their {routes:,} routes differ."
    )


def _findings(model: dict[str, Any], rows: Sequence[dict[str, Any]]) -> list[Finding]:
    found = []
    if model["is_random"]:
        message = (
            "weights are random: routers were never trained to balance, so loads of real tokens "
            "say nothing about the trained model; times and the arithmetic of rerouting do"
        )
        found.append(Finding("random_weights", "info", message))
    odd = [row for row in rows if row["difference"] and not row["difference"]["equal"]]
    if odd:
        message = (
            f"outputs at real tokens are not equal bit for bit in {len(odd)} of {len(rows)} runs: "
            "the experts' kernels add up in another order for another number of rows"
        )
        evidence = {row["run"]: row["difference"] for row in odd}
        is_moved = any(row["difference"]["routes_changed"] for row in odd)
        found.append(
            Finding("outputs_differ", "warning" if is_moved else "info", message, evidence)
        )
    if broken := [row["run"] for row in odd if not row["difference"]["finite"]]:
        message = f"outputs are not finite in {', '.join(broken)}: another --dtype is needed"
        found.append(Finding("not_finite", "error", message, {"runs": broken}))
    if not model["is_whole"]:
        message = "time or memory ran out before all settings: what is here was measured as asked"
        found.append(Finding("stopped_early", "warning", message))
    if full := [row["run"] for row in rows if not row["padding_tokens"]]:
        message = f"there is no padding in {', '.join(full)}: prompts of a batch are equally long"
        found.append(Finding("no_padding", "info", message, {"runs": full}))
    return found


def _decimal(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"
