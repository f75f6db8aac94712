"""How far two single runs of the same requests lie apart, placement aside: what one run can tell.

A prediction holds for the batches that ran. Another run cuts the same prompts into other steps,
and its GPUs differ otherwise from each other. Both are judged from the one run at hand:

- Steps with prompts come by chance of arrival, so their number varies by its square root (Poisson).
  One step more reads the weights of all experts once more: as much as a decode step takes.
- What a rank's launches take beside the fit is its own, not noise of each launch: the standard
  deviation over ranks, by product and phase.
"""

from __future__ import annotations

import math

import polars as pl

_NORMAL_95 = 1.96


def between_runs(launches: pl.DataFrame) -> dict[str, float | int]:
    """Return the standard deviation of a run's critical time from run to run.

    Args:
        launches: Of whole cells: ``step``, ``ordinal`` (the cell), ``phase``, ``gemm``, ``rank``,
            ``dur_ns``, ``predicted_ns``, ``is_padded``.

    Returns:
        ``prompt_steps`` (steps with prompts), ``step_ns`` (one step more), ``batching_ns``,
        ``ranks_ns``, ``sd_ns`` (of both); ns.
    """
    steps = (
        launches.group_by("phase", "step", "ordinal")
        .agg(pl.col("dur_ns").max())
        .group_by("phase", "step")
        .agg(pl.col("dur_ns").sum())
    )
    decode = steps.filter(pl.col("phase") == "decode")["dur_ns"]
    prompts = steps.filter(pl.col("phase") != "decode")["dur_ns"]
    # Without a decode step, the smallest step with prompts: it reads the experts as well.
    step = decode.median() if decode.len() else prompts.min()
    step_ns = float(step or 0)  # type: ignore[arg-type]
    batching = math.sqrt(prompts.len()) * step_ns
    ranks = _of_ranks(launches)
    return {
        "prompt_steps": prompts.len(),
        "step_ns": step_ns,
        "batching_ns": batching,
        "ranks_ns": ranks,
        "sd_ns": math.hypot(batching, ranks),
    }


def _of_ranks(launches: pl.DataFrame) -> float:
    left = (
        launches.filter(~pl.col("is_padded"))
        .with_columns(left=pl.col("dur_ns") - pl.col("predicted_ns"))
        .group_by("phase", "gemm", "rank", maintain_order=True)
        .agg(pl.col("left").sum())
        .group_by("phase", "gemm", maintain_order=True)
        .agg(pl.col("left").var())
    )
    return math.sqrt(float(left["left"].fill_null(0).sum()))


def pair_interval(
    saved_ns: float, half_width_ns: float, sd_ns: float
) -> tuple[tuple[float, float], int | None]:
    """Return between which savings one run of each arm would measure in 95 % of cases.

    Args:
        saved_ns: Predicted for the same batches.
        half_width_ns: Of its own 95 % interval.
        sd_ns: Standard deviation of one run, as ``between_runs`` returns it.

    Returns:
        The ends, and the runs an arm after which the mean saving shows (its interval, by this
        standard deviation alone, lies on one side of 0); None where nothing is saved or lost.
    """
    apart = _NORMAL_95 * math.sqrt(2) * sd_ns
    width = math.hypot(apart, half_width_ns)
    runs = max(1, math.ceil((apart / saved_ns) ** 2)) if saved_ns else None
    return (saved_ns - width, saved_ns + width), runs
