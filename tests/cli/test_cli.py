"""The command line: help, outputs, exit codes, and one line for anything that is wrong."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest
from click.testing import CliRunner, Result

import nsysmoe
from fixtures.builder import TraceBuilder
from nsysmoe.cli import COMMANDS, SUMMARIES, main
from tests.conftest import FOUR_GPUS, ROOT, TABLE1
from tests.reports.test_formats import PUBLISHED

if TYPE_CHECKING:
    from collections.abc import Callable

    Write = Callable[[TraceBuilder], Path]


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def program(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run nsysmoe as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "nsysmoe", *map(str, arguments)],
        capture_output=True,
        text=True,
        encoding=environment.get("PYTHONIOENCODING", "utf-8"),
        check=False,
        env={**os.environ, **environment},
        cwd=ROOT,
    )


def test_every_command_has_help_with_an_example() -> None:
    assert set(SUMMARIES) == set(COMMANDS)
    for name in COMMANDS:
        found = run(name, "--help")
        assert found.exit_code == 0
        assert "Example" in found.output
        assert f"nsysmoe {name} " in found.output
        assert "--format" in found.output
        assert "-o, --output" in found.output


def test_summaries_are_those_of_the_commands() -> None:
    for name, summary in SUMMARIES.items():
        assert summary in run("--help").output.replace("\n", " ")
        command = main.get_command(click.Context(main), name)
        assert command is not None


def test_version() -> None:
    assert run("--version").output == f"nsysmoe, version {nsysmoe.__version__}\n"


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from nsysmoe.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in ('duckdb', 'polars', 'pyarrow', 'plotly', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")


def test_compare_prints_the_published_table() -> None:
    found = program("compare", TABLE1 / "eplb_off.csv", TABLE1 / "eplb_on.csv")
    assert found.returncode == 0
    lead, _, rest = found.stdout.partition("\n\n")
    assert "critical MoE time unknown" in lead
    assert rest.startswith(PUBLISHED)
    assert found.stderr == ""


@pytest.mark.usefixtures("cache_folder")
def test_a_process_leaves_nothing_on_stderr(off: Path, on: Path) -> None:
    """Libraries that complain when Python ends would be heard here."""
    found = program("compare", off, on)
    assert (found.returncode, found.stderr) == (0, "")
    assert program("sql", off, "select 1 as a").stderr == ""


def test_labels_full_and_json(off: Path, on: Path) -> None:
    arguments = ("--baseline-label", "before", "--candidate-label", "after")
    found = json.loads(run("compare", off, on, *arguments, "--format", "json").stdout)
    assert (found["baseline"]["label"], found["candidate"]["label"]) == ("before", "after")
    text = run("compare", off, on, *arguments, "--full").output
    assert "Where the time of after went" in text
    assert "fused_moe p99 Duration (us)" in text


def test_kernels_json_has_the_promised_keys(off: Path) -> None:
    rows = json.loads(run("kernels", off, "--format", "json").stdout)
    assert list(rows[0]) == [
        "name", "class", "launches", "total_ns", "mean_ns", "median_ns", "min_ns", "max_ns",
        "stddev_ns",
    ]  # fmt: skip
    by_class = json.loads(run("kernels", off, "--by", "class", "--format", "json").stdout)
    assert "moe_gemm" in {row["class"] for row in by_class}


def test_sql_in_every_shape(off: Path) -> None:
    query = "select device_id, sum(dur_ns)::bigint as total from moe_kernels group by 1 order by 1"
    assert json.loads(run("sql", off, query, "--format", "json").stdout) == [
        {"device_id": 0, "total": 125923854},
        {"device_id": 1, "total": 81142265},
    ]
    assert run("sql", off, query, "--format", "csv").stdout == (
        "device_id,total\n0,125923854\n1,81142265\n"
    )
    empty = 'select 1 as "a,b" where false'
    assert run("sql", off, empty, "--format", "csv").stdout == '"a,b"\n'


def test_views_lists_what_sql_can_ask() -> None:
    text = run("views").output
    for view in ("kernels", "moe_kernels", "collectives", "kernel_classes"):
        assert f"{view}: " in text


def test_render_a_saved_comparison(off: Path, on: Path, tmp_path: Path) -> None:
    saved = tmp_path / "c.json"
    assert run("compare", off, on, "-o", saved).exit_code == 0
    assert run("render", saved).stdout == run("compare", off, on).stdout
    latex = run("render", saved, "--format", "latex").stdout
    before, _, _ = latex.partition("\\begin{table}")
    assert all(line.startswith("% ") for line in before.splitlines() if line)


@pytest.mark.parametrize("suffix", ["txt", "md", "csv", "json", "tex", "html"])
def test_the_suffix_tells_the_format(off: Path, on: Path, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"table.{suffix}"
    found = run("compare", off, on, "-o", path)
    assert found.exit_code == 0, found.output
    assert found.stdout == ""
    assert f"Wrote {path}" in found.stderr
    assert path.stat().st_size > 0
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_findings_are_not_lost_in_a_csv(off: Path, on: Path) -> None:
    found = run("compare", off, on, "--format", "csv")
    assert "one run an arm" in found.stderr
    assert "one run an arm" not in found.stdout


def test_output_to_stdout(off: Path, on: Path) -> None:
    assert run("compare", off, on, "-o", "-", "--format", "csv").stdout.startswith("group,")


def test_usage_errors_exit_with_2(off: Path, tmp_path: Path) -> None:
    for arguments in (
        ("compare", off),
        ("compare", off, off, "--format", "xml"),
        ("compare", off, off, "-o", tmp_path / "x.unknown"),
        ("kernels", off, "--by", "colour"),
        ("nonsense",),
    ):
        found = run(*arguments)
        assert found.exit_code == 2, arguments
        assert "Traceback" not in found.output


def _bad_inputs(tmp_path: Path, off: Path) -> dict[str, Path]:
    made = {
        "does not exist": tmp_path / "none.sqlite",
        "is a directory": tmp_path / "folder",
        "is empty": tmp_path / "empty.sqlite",
        "not a SQLite database": tmp_path / "noise.sqlite",
        "is truncated": tmp_path / "short.sqlite",
        "compressed": tmp_path / "packed.sqlite",
        "no GPU kernels": tmp_path / "cpu.sqlite",
        "not a kernel summary": tmp_path / "other.csv",
    }
    made["is a directory"].mkdir()
    made["is empty"].touch()
    made["not a SQLite database"].write_bytes(bytes(range(256)) * 20)
    made["is truncated"].write_bytes(off.read_bytes()[:50_000])
    made["compressed"].write_bytes(b"\x1f\x8b\x08")
    TraceBuilder().gpu(0).write(made["no GPU kernels"])
    made["not a kernel summary"].write_text("a,b\n1,2\n")
    return made


@pytest.mark.parametrize("command", ["compare", "summary", "kernels", "info", "sql"])
def test_bad_inputs_get_one_line_and_exit_1(tmp_path: Path, off: Path, command: str) -> None:
    for message, path in _bad_inputs(tmp_path, off).items():
        if message == "not a kernel summary" and command in {"info", "sql"}:
            message = "is a table, not a trace"  # noqa: PLW2901
        more: dict[str, list[str | Path]] = {
            "compare": [off],
            "sql": ["select count(*) from kernels"],
        }
        output = tmp_path / "out.json"
        found = run(command, path, *more.get(command, []), "-o", output)
        assert found.exit_code == 1, (command, message, found.output)
        errors = [line for line in found.stderr.splitlines() if not line.startswith("Wrote ")]
        assert len(errors) == 1, found.stderr
        assert errors[0].startswith("Error: ")
        assert message in errors[0]
        assert str(path) in errors[0]
        assert output.exists() == (command == "info" and message == "no GPU kernels")
        output.unlink(missing_ok=True)


def test_no_moe_kernel_in_one_arm(off: Path, written: Write) -> None:
    path = written(TraceBuilder().kernel("my_nccl_tests_helper", 0, 1))
    found = run("compare", off, path)
    assert found.exit_code == 1
    assert "no MoE kernel" in found.stderr
    assert found.stdout == ""
    assert run("summary", path).exit_code == 0


def test_an_input_is_never_overwritten(off: Path, on: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copy(off, tmp_path / "off.sqlite"))
    found = run("compare", copy, on, "--format", "json", "-o", copy)
    assert found.exit_code == 1
    assert "is an input" in found.stderr
    assert copy.read_bytes() == off.read_bytes()


def test_odd_places_for_the_output(off: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copy(off, tmp_path / "off.sqlite"))
    loop = tmp_path / "loop.json"
    loop.symlink_to(loop)
    for place, message in (
        (tmp_path / "off.sqlite-wal", "is an input"),
        (loop, "loop.json"),
        (tmp_path / ("l" * 300 + ".json"), "cannot be written"),
        (tmp_path, "is a directory"),
    ):
        found = run("summary", copy, "--format", "json", "-o", place)
        assert found.exit_code == 1, place
        assert message in found.stderr
        assert "defect" not in found.stderr


def test_a_long_name_for_the_output(off: Path, tmp_path: Path) -> None:
    assert run("summary", off, "-o", tmp_path / ("l" * 248 + ".json")).exit_code == 0


def test_closed_and_full_streams(off: Path) -> None:
    command = f"{sys.executable} -m nsysmoe summary {off}"
    for redirect, code, said in ((">&-", 1, "closed"), (">/dev/full", 1, "cannot write")):
        done = subprocess.run(
            ["sh", "-c", command + redirect], capture_output=True, text=True, check=False, cwd=ROOT
        )
        assert done.returncode == code
        assert said in done.stderr
        assert len(done.stderr.splitlines()) == 1
    done = subprocess.run(
        ["sh", "-c", command + " 2>&-"], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert (done.returncode, "MoE Total Time" in done.stdout) == (0, True)


def test_empty_labels_are_refused(off: Path, on: Path) -> None:
    assert run("compare", off, on, "--baseline-label", " ").exit_code == 2


@pytest.mark.parametrize(
    "change",
    [
        {"baseline": {"label": 1, "sources": [], "breakdown": []}},
        {"findings": [{"code": "a", "severity": "loud", "message": "", "evidence": {}}]},
        {"metrics": 5},
        {"metrics": [{"group": "g", "metric": "cv", "baseline": "1", "candidate": 1,
                      "change": None, "verdict": None}]},
        {"metrics": [{"group": "g", "metric": "cv", "baseline": 10**400, "candidate": 1,
                      "change": None, "verdict": None}]},
    ],
)  # fmt: skip
def test_render_refuses_what_nobody_saved(
    off: Path, on: Path, tmp_path: Path, change: dict[str, object]
) -> None:
    path = tmp_path / "c.json"
    path.write_text(json.dumps(nsysmoe.compare(off, on).to_dict() | change))
    found = run("render", path)
    assert found.exit_code == 1
    assert "is not a comparison" in found.stderr


def test_collectives_of_several_communicators() -> None:
    rows = json.loads(run("collectives", FOUR_GPUS, "--format", "json").stdout)
    assert len({(row["collective"], row["device"]) for row in rows}) == len(rows) == 8
    apart = json.loads(
        run("collectives", FOUR_GPUS, "--by", "communicator", "--format", "json").stdout
    )
    # Each of four ranks: all-gather over all; all-reduce over all, neighbours and strides.
    assert len(apart) == 16
    assert sum(row["wait_ns"] for row in apart) == sum(row["wait_ns"] for row in rows)


def test_json_of_collectives_imbalance_and_phases(off: Path) -> None:
    rows = json.loads(run("collectives", off, "--format", "json").stdout)
    assert list(rows[0]) == [
        "collective", "process", "device", "matched", "unmatched", "total_ns",
        "transfer_ns", "wait_ns", "arrived_last",
    ]  # fmt: skip
    row = json.loads(run("imbalance", off, "--format", "json").stdout)
    assert {"cells", "p50", "p95", "max", "critical_ns", "mean_ns", "excess_ns", "attribution"} <= (
        row.keys()
    )
    rows = json.loads(run("imbalance", off, "--by", "layer", "--format", "json").stdout)
    assert [row["layer"] for row in rows] == list(range(8))
    rows = json.loads(run("phases", off, "--format", "json").stdout)
    assert list(rows[0]) == [
        "phase", "steps", "launches", "moe_total_ns", "critical_ns", "tokens",
    ]  # fmt: skip


def test_no_partial_file_is_left(off: Path, on: Path, tmp_path: Path) -> None:
    found = run("compare", off, on, "-o", tmp_path / "missing" / "x.json")
    assert found.exit_code == 1
    assert "cannot be written" in found.stderr
    old = tmp_path / "x.json"
    old.write_text("old")
    assert run("compare", off, tmp_path / "none.sqlite", "-o", old).exit_code == 1
    assert old.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_a_defect_is_one_line_too(off: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object, **_options: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr("nsysmoe.analysis.one_trace.summary.read_run", fail)
    found = run("summary", off)
    assert found.exit_code == 4
    assert "RuntimeError: boom" in found.stderr
    assert "NSYSMOE_DEBUG" in found.stderr
    assert "Traceback" not in found.output


def test_hostile_file_names_do_not_steer_the_terminal(tmp_path: Path) -> None:
    found = run("info", tmp_path / "a\x1b[2J.sqlite")
    assert "\x1b" not in found.stderr
    assert "\\x1b[2J" in found.stderr


def test_a_terminal_that_knows_no_sigma(off: Path, on: Path) -> None:
    found = program("compare", off, on, PYTHONIOENCODING="latin-1")
    assert found.returncode == 0
    assert "CV (\\u03c3/\\u03bc)" in found.stdout


def test_classes_option(off: Path, on: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text('[[rule]]\nclass = "moe_gemm"\nfunction = "act_and_mul_kernel"\n')
    found = run("compare", off, on, "--classes", own)
    assert "MoE kernel: act_and_mul_kernel, fused_moe_kernel" in found.output
    own.write_text("[[rule]]\n")
    assert run("compare", off, on, "--classes", own).exit_code == 1


def test_a_line_about_a_megabyte_is_no_megabyte(tmp_path: Path) -> None:
    path = tmp_path / "long.csv"
    path.write_text(f"Total Time,Instances,Name\n{'x' * 2**20},1,k\n")
    (line,) = run("summary", path).stderr.splitlines()
    assert str(path) in line
    assert line.endswith("is not a time such as 102.664 s or 102664000")
    assert len(line) < 2_000
