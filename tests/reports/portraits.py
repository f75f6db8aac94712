"""Portraits made by hand: a run of some ranks, layers and steps, the same at every call."""

from __future__ import annotations

import random
from dataclasses import replace

from nsysmoe.analysis.comparing.comparison import Breakdown, Change, Comparison, Sentence, Side
from nsysmoe.analysis.comparing.portrait import Portrait, Rows
from nsysmoe.findings import Finding
from nsysmoe.metrics.kernel_time.table1 import METRICS, relative_change, verdict
from nsysmoe.metrics.statistics.interval import Interval

HOSTILE = "<script>alert(1)</script>%{x}$\\sin$<b>bold</b>\u202e"
MS, US = 1_000_000, 1_000
_PHASES = (("prefill", 64, 410), ("decode", 720, 180), ("mixed", 16, 60))


def portrait(
    label: str, *, ranks: int = 2, layers: int = 8, steps: int = 50, skew: float = 0.3
) -> Portrait:
    """Return a run whose last rank is slower than the mean by ``skew``."""
    dice = random.Random(7)
    slow = [1 + skew * (2 * rank / max(1, ranks - 1) - 1) for rank in range(ranks)]
    timeline = _timeline(layers, slow)
    return Portrait(
        label,
        f"{label}.sqlite",
        tuple(_time_use(rank, slow[rank], max(slow)) for rank in range(ranks)),
        tuple(
            {"phase": phase, "cells": cells, "mean_ns": mean * MS,
             "excess_ns": round(mean * skew * MS), "critical_ns": round(mean * (1 + skew) * MS)}
            for phase, cells, mean in _PHASES
        ),
        tuple(_durations(skew)),
        tuple(
            {"rank": rank, "process": 1000 + rank, "device": rank, "transfer_ns": 95 * MS,
             "wait_ns": round((max(slow) - slow[rank]) * 300 * MS), "unmatched_ns": 3 * MS}
            for rank in range(ranks)
        ),
        tuple(
            {"layer": layer, "rank": rank, "dur_ns": round(ratio * 40 * MS), "ratio": ratio}
            for layer in range(layers)
            for rank in range(ranks)
            for ratio in [1 + (slow[rank] - 1) * dice.uniform(0.3, 1.2)]
        ),
        tuple(_steps(steps, skew, dice)),
        tuple(
            {"start_ns": 5 * MS + 400 * MS * n, "end_ns": 9 * MS + 400 * MS * n,
             "transfers": 96, "stall_ns": 2 * MS}
            for n in range(3)
        ),
        timeline,
        17,
        "slowest",
        (f"Drawn are the {len(timeline):,} longest kernels of the step.",),
        tuple(
            {"phase": phase, "collectives": 9, "wait_ns": 90 * MS, "moe": 80 * MS,
             "other_kernels": -MS, "host": 10 * MS, "other_gap": MS, "previous_end": 0,
             "residual": 0}
            for phase in (None, "decode")
        ),
        tuple(
            {"kind": kind, "change": change, "added": change[-1],
             "whatif_ns": (1200 - 100 * len(change)) * MS, "saved_ns": 100 * len(change) * MS}
            for kind, change in (
                ("alone", ["balanced_moe"]), ("alone", ["no_host_delay"]),
                ("order", ["no_host_delay"]), ("order", ["no_host_delay", "balanced_moe"]),
            )
        ),
        1200 * MS,
    )  # fmt: skip


def _time_use(rank: int, slow: float, slowest: float) -> dict[str, int]:
    moe, waiting = round(650 * slow * MS), round(500 * (slowest - slow) * MS)
    parts = {
        "moe_ns": moe, "other_compute_ns": 310 * MS, "exposed_transfer_ns": 80 * MS,
        "exposed_wait_ns": waiting, "exposed_unmatched_ns": 0, "copy_ns": 9 * MS,
        "idle_ns": 55 * MS,
    }  # fmt: skip
    place = {"rank": rank, "process": 1000 + rank, "device": rank}
    return {**place, "window_ns": sum(parts.values()), **parts}


def _durations(skew: float) -> Rows:
    rows: list[dict[str, object]] = []
    for phase, centre, most in (("prefill", 24, 900), ("decode", 12, 21_000)):
        for number in range(40):
            launches = round(most * 2.0 ** -(((number - centre) / (2 + 4 * skew)) ** 2))
            if number == 38:
                launches = 2
            low, high = (round(10 ** (3.6 + 0.1 * (number + more))) for more in (0, 1))
            rows.append({"phase": phase, "low_ns": low, "high_ns": high, "launches": launches})
    return tuple(rows)


def _steps(steps: int, skew: float, dice: random.Random) -> Rows:
    rows = []
    for step in range(steps):
        prefill = step % 10 == 0
        p50 = 1 + skew * dice.uniform(0.7, 1.1)
        rows.append({
            "step": step, "phase": "prefill" if prefill else "decode",
            "start_ns": 10**15 + step * 24 * MS, "wall_ns": (40 if prefill else 22) * MS,
            "p50": p50, "max": min(2.0, p50 + dice.uniform(0.05, 0.35)),
            "cause": "first run of a kernel (autotuning)" if step in {0, 31} else None,
        })  # fmt: skip
    return tuple(rows)


def _timeline(layers: int, slow: list[float]) -> Rows:
    rows = []
    for rank, factor in enumerate(slow):
        at = 10**15
        for _ in range(layers):
            last = at + round(max(slow) * 420 * US) + 160 * US
            for name, kind, duration in (
                ("void flash_fwd_kernel<Flash_fwd_traits<128, 64>>(Params)", "compute", 120 * US),
                ("fused_moe_kernel", "moe", round(factor * 280 * US)),
                (
                    "void vllm::act_and_mul_kernel<c10::BFloat16>(T *, T const *)",
                    "compute",
                    30 * US,
                ),
                ("fused_moe_kernel", "moe", round(factor * 140 * US)),
            ):
                rows.append(_kernel(rank, at, duration, name, kind))
                at += duration + 2 * US
            name = "ncclDevKernel_AllReduce_Sum_bf16_RING_LL(ncclDevKernelArgsStorage<4096ul>)"
            if last > at:
                rows.append(_kernel(rank, at, last - at, name, "wait"))
            rows.append(_kernel(rank, last, 70 * US, name, "transfer"))
            rows.append(_kernel(rank, last - 50 * US, 4 * US, "memcpy DtoD", "copy"))
            at = last + 72 * US
    return tuple(rows)


def _kernel(rank: int, start: int, duration: int, name: str, kind: str) -> dict[str, object]:
    return {"rank": rank, "start_ns": start, "dur_ns": duration, "name": name, "kind": kind}


def rearranged(one: Portrait) -> Portrait:
    """Return the portrait whose rearrangements fall into its steps."""
    begin = one.steps[0]["start_ns"]
    moved = [
        {**row, "start_ns": begin + row["start_ns"], "end_ns": begin + row["end_ns"]}
        for row in one.rearrangements
    ]
    return replace(one, rearrangements=tuple(moved))


def hostile(one: Portrait) -> Portrait:
    """Return the portrait with a hostile text wherever a text comes from a trace."""
    return replace(
        one,
        label=HOSTILE,
        phases=tuple({**row, "phase": HOSTILE} for row in one.phases),
        durations=tuple({**row, "phase": HOSTILE} for row in one.durations[:40]),
        steps=tuple({**row, "phase": HOSTILE, "cause": HOSTILE} for row in one.steps),
        timeline=tuple({**row, "name": HOSTILE} for row in one.timeline),
        timeline_choice=HOSTILE,
        reduced=(HOSTILE,),
        waits=tuple({**row, "phase": HOSTILE} for row in one.waits),
    )


_BEFORE = {
    "total_time_ns": 102_664 * MS, "mean_ns": 383.68 * US, "max_ns": 239_809 * US,
    "stddev_ns": 2_472 * US, "cv": 6.44, "max_min_ratio": 92_519.0, "nccl_total_ns": 85_965 * MS,
    "allreduce_total_ns": 1_272 * MS,
}  # fmt: skip
_AFTER = {
    "total_time_ns": 108_419 * MS, "mean_ns": 398.68 * US, "max_ns": 225_736 * US,
    "stddev_ns": 2_446 * US, "cv": 6.14, "max_min_ratio": 86_027.0, "nccl_total_ns": 92_534 * MS,
    "allreduce_total_ns": 1_928 * MS,
}  # fmt: skip
_INTERVALS = {
    "total_time_ns": (0.031, 0.082), "mean_ns": (0.012, 0.061), "stddev_ns": (-0.09, 0.07),
    "nccl_total_ns": (-0.02, 0.17), "cv": (-0.08, -0.02),
}  # fmt: skip


def _interval(key: str) -> Interval | None:
    return Interval(*_INTERVALS[key], 0.95, "runs", 5, 5) if key in _INTERVALS else None


def comparison(baseline: str = "EPLB OFF", candidate: str = "EPLB ON") -> Comparison:
    """Return the paper's Table 1 with a verdict, intervals and findings."""
    made_of = (Breakdown("moe_kernel", "fused_moe_kernel", 1000, 0, 267_576, 102_664 * MS),)
    changes = []
    for metric in METRICS:
        before, after = _BEFORE.get(metric.key), _AFTER.get(metric.key)
        changes.append(
            Change(
                metric.group,
                metric.key,
                before,
                after,
                relative_change(before, after),
                verdict(before, after),
                _interval(metric.key),
            )
        )
    return Comparison(
        Side(baseline, (f"{baseline}.sqlite",), made_of),
        Side(candidate, (f"{candidate}.sqlite",), made_of),
        tuple(changes),
        (
            Finding("unequal_work", "warning", "The arms did unequal work: 61,000 and 64,000 "
                    "tokens, so totals mislead."),
            Finding("first_runs", "info", "2 steps hold the first run of a kernel."),
        ),
        (
            Sentence("balance", "better",
                     "EPLB made MoE more balanced, yet the run slower: total MoE time +5.6 %.", {}),
            Sentence("wall_time", "worse",
                     "The slowest rank costs 12 % over the mean, 31 % before.", {}),
            Sentence("noise", "within",
                     "NCCL took 7.6 % more time; most of it is transfer, not waiting.", {}),
        ),
        causes=tuple(
            {"cause": cause, "baseline_ns": before * MS, "candidate_ns": after * MS,
             "change_ns": (after - before) * MS}
            for cause, before, after in (
                ("moe", 455, 430), ("wait_moe", 60, 20), ("transfer", 80, 95), ("host", 0, 0),
                ("wait_unexplained", 5, 6),
            )
        ),
    )  # fmt: skip
