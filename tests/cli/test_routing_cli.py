"""``nsysmoe routing explain`` and ``nsysmoe roofline`` on the real pair's first steps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_cli import run
from tests.conftest import GRAPHS, REPLICAS

OFF, ON = (
    tuple(GRAPHS / f"eplb_{arm}.{end}" for end in ("sqlite", "routed.npz", "run.json"))
    for arm in ("off", "on")
)
CONFIG = GRAPHS / "config.json"
EXPLAIN = ("routing", "explain", OFF[0], "--routed", OFF[1], "--run", OFF[2])
AGAINST = ("--against", ON[0], "--against-routed", ON[1], "--against-run", ON[2])
ROOFLINE = ("roofline", OFF[0], "--routed", OFF[1], "--run", OFF[2])


def answer(*arguments: str | Path) -> Any:
    found = run(*arguments, "--format", "json")
    assert found.exit_code == 0, found.output
    return json.loads(found.stdout)


def test_the_pair_is_explained_by_sentences_first() -> None:
    found = run(*EXPLAIN, *AGAINST)
    assert found.exit_code == 0, found.output
    lines = found.stdout.splitlines()
    assert lines[0].startswith("In decode active experts, counted in blocks, explain durations")
    assert lines[1].startswith("In prefill tokens explain durations of w13")
    assert lines[2].startswith("The fit on the first trace predicts the slowest ranks")
    assert lines[3].startswith("By the second placement decode")
    assert "[partial_run]" in found.stdout


def test_numbers_of_the_pair() -> None:
    found = answer(*EXPLAIN, *AGAINST)
    costs = {(row["phase"], row["gemm"], row["block_m"]): row for row in found["costs"]}
    decode = costs["decode", "w13", 16]
    assert decode["r2"] > 0.99
    assert decode["r2_held_out"] > 0.99
    assert decode["r2_tokens"] < 0.2
    # A block of 16 rows reads 235 MB: 70 us at 3.35 TB/s.
    assert 70_000 < (decode["per_expert_ns"] or 0) + 16 * decode["per_row_ns"] < 80_000
    scores = {(row["phase"], row["gemm"]): row for row in found["scores"]}
    assert scores["decode", "w13"]["r2"] > 0.99
    assert all(row["r2"] > 0.95 and row["unpredicted"] == 0 for row in scores.values())
    sums = {(row["phase"], row["what"]): row for row in found["sums"]}
    errors = {what: abs(sums["all", what]["critical_error"])
              for what in ("predicted", "no_change", "perfect_balance", "baseline")}  # fmt: skip
    assert errors["predicted"] < 0.02 < min(errors[what] for what in errors if what != "predicted")
    assert {finding["code"] for finding in found["findings"]} == {"partial_run"}


def test_the_tax_of_replicas_is_predicted_from_a_run_without_any() -> None:
    replicas = [REPLICAS / f"eplb_on.{end}" for end in ("sqlite", "routed.npz", "run.json")]
    against = zip(("--against", "--against-routed", "--against-run"), replicas, strict=True)
    found = answer(*EXPLAIN, *(word for pair in against for word in pair))
    sums = {(row["phase"], row["what"]): row for row in found["sums"]}
    for phase in ("all", "decode", "prefill"):
        errors = {what: abs(sums[phase, what]["critical_error"])
                  for what in ("predicted", "no_change")}  # fmt: skip
        assert errors["predicted"] < 0.05
        assert errors["predicted"] < errors["no_change"]
    assert abs(sums["decode", "predicted"]["critical_error"]) < 0.02
    taxes = {row["phase"]: row for row in found["tax"]}
    # Decode reads one more expert's weights, prefill is balanced.
    assert taxes["decode"]["change_ns"] > 20_000
    assert taxes["prefill"]["change_ns"] < -1_000
    assert 10 < found["break_even_prompt_tokens"] < 30


def test_sizes_of_the_model_change_nothing_where_the_grids_agree() -> None:
    assert answer(*EXPLAIN) == answer(*EXPLAIN, "--config", CONFIG)


def test_one_trace_is_not_judged_on_itself() -> None:
    found = answer(*EXPLAIN)
    assert found["against"] is None
    assert found["scores"] == found["tax"] == []
    assert {row["what"] for row in found["sums"]} == {"measured", "perfect_balance"}


def test_the_roofline_of_the_pair() -> None:
    found = answer(*ROOFLINE, "--config", CONFIG)
    assert found["peaks"]["gpu"] == "NVIDIA H100 80GB HBM3"
    assert (found["peaks"]["bandwidth_from"], found["peaks"]["bytes_per_s"]) == (
        "trace",
        3.35232e12,
    )
    phases = {row["phase"]: row for row in found["phases"]}
    assert phases["decode"]["bandwidth_bound_ratio"] == 1
    assert 0.8 < phases["decode"]["limit_ratio"] < 1
    assert phases["prefill"]["bandwidth_bound_ratio"] < 0.5
    text = run(*ROOFLINE, "--config", CONFIG).stdout
    assert text.startswith("Decode is bound by the bandwidth of weights in 100.0% of its time")
    assert "balance active experts, not tokens" in text
    assert "balance tokens." in text
    sized = answer(*ROOFLINE, "--hidden-size", "4096", "--intermediate-size", "14336",
                   "--weight-bytes", "2")  # fmt: skip
    assert sized == found
    slower = answer(*ROOFLINE, "--config", CONFIG, "--bandwidth", "1000", "--flops", "500")
    assert slower["peaks"]["bytes_per_s"] == 1e12
    assert slower["ridge_rows"] == 500


@pytest.mark.parametrize("format_", ["table", "markdown", "csv", "json", "latex", "html"])
@pytest.mark.parametrize("command", [(*EXPLAIN, *AGAINST), (*ROOFLINE, "--config", CONFIG)])
def test_every_format(command: tuple[str | Path, ...], format_: str) -> None:
    found = run(*command, "--format", format_)
    assert found.exit_code == 0, found.output
    assert "decode" in found.stdout


def test_inputs_are_never_written_over() -> None:
    before = OFF[1].read_bytes()
    for path in (*OFF, *ON):
        found = run(*EXPLAIN, *AGAINST, "--format", "json", "-o", path)
        assert found.exit_code == 1
        assert found.stderr.count("\n") == 1
    assert OFF[1].read_bytes() == before


def test_wrong_usage_and_wrong_inputs_say_so_in_one_line(tmp_path: Path) -> None:
    usage = run(*EXPLAIN, "--against", ON[0])
    assert usage.exit_code == 2
    assert "go together" in usage.stderr
    sizes = run(*ROOFLINE)
    assert sizes.exit_code == 2
    assert "--config" in sizes.stderr
    part = run(*ROOFLINE, "--hidden-size", "4096", "--weight-bytes", "2")
    assert part.exit_code == 1
    assert "intermediate size" in part.stderr
    hostile = tmp_path / "run.json"
    hostile.write_text('{"args": {}, "runs": "\\u001b[31m"}', encoding="utf-8")
    found = run("routing", "explain", OFF[0], "--routed", OFF[1], "--run", hostile)
    assert found.exit_code == 1
    assert found.stderr.count("\n") == 1
    assert "\x1b" not in found.stderr


def test_each_subcommand_has_help_with_an_example() -> None:
    found = run("routing", "explain", "--help")
    assert found.exit_code == 0
    assert "nsysmoe routing explain " in found.output
    for option in ("--format", "-o, --output", "--against", "--block-m"):
        assert option in found.output
