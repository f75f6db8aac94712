"""Prints every metric that adds up floats, of rows in some order: ``python -m … ORDER``."""

from __future__ import annotations

import json
import sys

import numpy as np
import polars as pl

from nsysmoe.metrics.kernel_time.bounds import bounds, longest_window, time_causes
from nsysmoe.metrics.kernel_time.clock_error import (
    transfers_across_clocks,
    uncertain_metrics,
    waits_across_clocks,
)
from nsysmoe.metrics.kernel_time.conservation import conservation
from nsysmoe.metrics.kernel_time.durations import counted_statistics, pooled_statistics
from nsysmoe.metrics.kernel_time.imbalance import imbalance, slowest_ranks
from nsysmoe.metrics.kernel_time.rearrangement import rearrangement_effects
from nsysmoe.metrics.kernel_time.schedule import schedule_values
from nsysmoe.metrics.kernel_time.steps import SUMS, step_table, undistorted, with_work

CELLS, SLICES = 240_000, 60
CHANCE = np.random.default_rng(1)


def cells() -> pl.DataFrame:
    """Return cells of two to seven ranks, and of one: polars keeps these in chunks by thread."""
    ranks = CHANCE.integers(1, 8, CELLS)
    slowest = CHANCE.integers(10_000, 900_000, CELLS)
    return pl.DataFrame(
        {
            "cell": np.arange(CELLS),
            "ranks": ranks,
            "slowest_ns": slowest,
            "mean_ns": (slowest - CHANCE.integers(0, 9_000, CELLS)) / ranks,
            "slowest_rank": CHANCE.integers(0, 8, CELLS),
            # Several begin at once.
            "start_ns": np.sort(CHANCE.integers(0, 3_000_000, CELLS)) * 1000,
            "phase": CHANCE.choice(["prefill", "decode"], CELLS),
            "layer": CHANCE.integers(0, 27, CELLS),
        }
    )


def slices() -> pl.DataFrame:
    starts = np.arange(SLICES) * 50_000_000
    return pl.DataFrame(
        {
            "slice": np.arange(SLICES),
            "start_ns": starts,
            "end_ns": starts + 50_000_000,
            "wall_ns": CHANCE.integers(40_000_000, 50_000_000, SLICES),
            "phase": ["decode"] * SLICES,
            "step": np.arange(SLICES),
        }
    )


def device_time() -> pl.DataFrame:
    count = 2 * SLICES
    times = ("moe_ns", "exposed_copy_ns", "exposed_transfer_ns", "exposed_unmatched_ns",
             "exposed_wait_ns", "idle_ns")  # fmt: skip
    frame = pl.DataFrame(
        {
            "global_pid": np.repeat([1, 2], SLICES),
            "process_id": np.repeat([1, 2], SLICES),
            "device_id": np.repeat([0, 1], SLICES),
            "step": np.tile(np.arange(SLICES), 2),
            "phase": ["decode"] * count,
            "start_ns": np.tile(np.arange(SLICES) * 50_000_000, 2),
            **{name: CHANCE.integers(0, 7_000_000, count) for name in times},
        }
    )
    return frame.with_columns(
        compute_ns=pl.col("moe_ns") * 2,
        window_ns=pl.sum_horizontal("moe_ns", *times),
    )


def ledger() -> pl.DataFrame:
    causes = ("moe", "other_kernels", "host", "other_gap", "previous_end", "residual")
    return pl.DataFrame(
        {
            "global_pid": [1, 2], "process_id": [1, 2], "device_id": [0, 1],
            "phase": ["decode"] * 2,
            **{f"{name}_ns": CHANCE.integers(0, 9_000_000, 2) for name in causes},
        }
    )  # fmt: skip


def gaps() -> pl.DataFrame:
    names = ("calling_ns", "outside_ns", "blocked_ns", "launched_ns", "unknown_ns")
    return pl.DataFrame(
        {
            "global_pid": [1, 2], "process_id": [1, 2], "device_id": [0, 1],
            "phase": ["decode"] * 2,
            **{name: CHANCE.integers(0, 9_000_000, 2) for name in names},
        }
    )  # fmt: skip


def meetings() -> pl.DataFrame:
    count, ranks = 4_000, 6
    waits = CHANCE.integers(0, 50_000, (count, ranks))
    waits[np.arange(count), CHANCE.integers(0, ranks, count)] = 0
    return pl.DataFrame(
        {
            "kernel_id": np.arange(count * ranks),
            "file": np.tile([0, 1, 1, 2, 3, 3], count),
            "name_id": np.zeros(count * ranks, np.int64),
            "communicator": np.repeat(np.arange(count) % 5, ranks),
            "ordinal": np.repeat(np.arange(count), ranks),
            "is_matched": np.ones(count * ranks, bool),
            "is_last": waits.ravel() == 0,
            "wait_ns": waits.ravel(),
            "dur_ns": waits.ravel() + CHANCE.integers(20_000, 60_000, count * ranks),
        }
    )


def collectives() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "slice": np.arange(SLICES),
            "phase": ["decode"] * SLICES,
            "collective": ["all_reduce"] * SLICES,
            **{name: [True] * SLICES for name in ("is_matched", "is_nccl", "is_allreduce")},
            **{
                name: CHANCE.integers(1, 10**6, SLICES)
                for name in ("dur_ns", "wait_ns", "transfer_ns")
            },
        }
    )


def rearranged() -> pl.DataFrame:
    columns = ("rearrangement", "start_ns", "end_ns", "ranks", "transfers", "total_ns", "moving_ns")
    rows = [
        (0, 900_000_000, 940_000_000, 2, 8, 9_000, 5_000),
        (1, 2 * 10**9, 21 * 10**8, 2, 8, 9, 5),
    ]
    return pl.DataFrame(rows, schema=dict.fromkeys(columns, pl.Int64), orient="row")


def kernels() -> pl.DataFrame:
    count = 2_000
    launches = CHANCE.integers(1, 900, count)
    return pl.DataFrame(
        {
            "launches": launches,
            "total_ns": launches * 1000,
            "mean_ns": CHANCE.uniform(1e3, 9e5, count),
            "median_ns": CHANCE.uniform(1e3, 9e5, count),
            "min_ns": CHANCE.integers(1, 1_000, count),
            "max_ns": CHANCE.integers(1_000, 9_000, count),
            "stddev_ns": CHANCE.uniform(1, 9e4, count),
        }
    )


def answers(order: int) -> dict[str, object]:
    """Return every metric of the same rows, shuffled by ``order``."""

    def shuffled(frame: pl.DataFrame) -> pl.DataFrame:
        return frame.sample(fraction=1.0, shuffle=True, seed=order)

    paired, cuts, spent = shuffled(cells()), slices(), shuffled(device_time())
    paired = paired.filter(pl.col("ranks") > 1)
    launches = shuffled(
        pl.DataFrame(
            {"global_pid": [1, 2] * 40_000, "device_id": [0, 1] * 40_000,
             "dur_ns": CHANCE.integers(1, 90_000, 80_000), "launches": [1] * 80_000}
        )
    )  # fmt: skip
    sums = {name: CHANCE.integers(1, 10**9, SLICES) for name in SUMS if name not in MADE}
    sums["dur_ns"] = sums.pop("total_ns")
    worked = pl.DataFrame({"slice": np.arange(SLICES), **sums})
    work = cuts.select("slice", "start_ns", "phase", blocks=pl.lit(64, pl.Int64))
    met = shuffled(collectives())
    table = step_table(with_work(cuts, work), worked, paired, met, spent)
    causes = time_causes(spent, shuffled(gaps()), shuffled(ledger()))
    residuals, events = [0.0, 1234.567, 4321.987, 2222.111], shuffled(meetings())
    across = waits_across_clocks(events, residuals)
    return {
        "imbalance": [imbalance(paired, by).to_dicts() for by in ([], ["layer"], ["phase"])],
        "slowest": slowest_ranks(paired).to_dicts(),
        "conservation": conservation(paired, met).to_dicts(),
        "schedule": schedule_values(launches, paired, met, spent),
        "steps": table.to_dicts(),
        "undistorted": undistorted(table, table.head(3))[0].to_dicts(),
        "rearranged": rearrangement_effects(rearranged(), table, paired).to_dicts(),
        "bounds": bounds(causes, ["phase"]).to_dicts(),
        "causes": longest_window(causes),
        "durations": counted_statistics(launches).to_dicts(),
        "pooled": pooled_statistics(shuffled(kernels())).to_dicts(),
        "clocks": uncertain_metrics(across, transfers_across_clocks(events, residuals), 6),
    }


# What ``step_table`` adds up itself.
MADE = {
    "critical_ns", "mean_ns", "excess_ns", "wait_ns", "transfer_ns", "nccl_total_ns",
    "allreduce_total_ns", "exposed_wait_ns", "exposed_transfer_ns", "idle_ns", "wall_ns",
}  # fmt: skip


if __name__ == "__main__":
    json.dump({"threads": pl.thread_pool_size(), "told": answers(int(sys.argv[1]))}, sys.stdout)
