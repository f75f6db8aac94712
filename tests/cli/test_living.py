"""What one lives with: exit codes, how much is said, colours, completion, Ctrl-C."""

from __future__ import annotations

import errno
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fixtures.builder import TraceBuilder
from nsysmoe.cli import COMMANDS, exits, main
from tests.conftest import DP2, ROOT

_OFF, _ON = str(DP2 / "eplb_off.sqlite"), str(DP2 / "eplb_on.sqlite")
_COLOUR = re.compile(rb"\x1b\[(?:\d+;)*(?:3[0-8]|4[0-8]|9[0-7])(?:;\d+)*m")
_CODE = re.compile(r"^\| (\d+) \| (.+) \|$", re.MULTILINE)


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def on_terminal(*arguments: str, **environment: str) -> bytes:
    """Return what a program writes to a terminal that is both its stdout and its stderr."""
    ours, theirs = pty.openpty()
    code = (
        "import sys; from nsysmoe.cli import main, progress; progress._PATIENCE_S = 0.0\n"
        "main(sys.argv[1:], prog_name='nsysmoe')"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=theirs,
        stderr=theirs,
        stdin=subprocess.DEVNULL,
        cwd=ROOT,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", **environment},
    )
    os.close(theirs)
    found = b""
    while part := _read(ours):
        found += part
    os.close(ours)
    assert process.wait(120) == 0, found
    return found


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:
        # Linux: the other end is closed.
        return b""


def test_the_page_lists_every_exit_code_once() -> None:
    rows = dict(_CODE.findall((ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")))
    known = {value for name, value in vars(exits).items() if name.isupper()}
    assert {int(code) for code in rows} == {0, *known}


def test_codes_of_every_kind_of_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("summary", _OFF).exit_code == 0
    assert run("summary", tmp_path / "none.sqlite").exit_code == exits.REFUSED
    assert run("summary", _OFF, "--format", "xml").exit_code == exits.USAGE
    slower = TraceBuilder().gpu(0)
    faster = TraceBuilder().gpu(0)
    for step in range(40):
        slower.kernel("fused_moe_kernel", 1000 * step, 500 + step % 3)
        faster.kernel("fused_moe_kernel", 1000 * step, 100 + step % 3)
    for name, build in (("fast", faster), ("slow", slower)):
        for number in range(3):
            (tmp_path / name).mkdir(exist_ok=True)
            build.write(tmp_path / name / f"{number}.sqlite")
    gate = ("compare", tmp_path / "fast", tmp_path / "slow", "--quick", "--gate", "total_time_ns=1")
    assert run(*gate).exit_code == exits.GATE
    assert run(*gate[:4], "--gate", "total_time_ns=900").exit_code == 0

    def fail(*_arguments: object, **_options: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr("nsysmoe.analysis.one_trace.summary.read_run", fail)
    assert run("summary", _OFF).exit_code == exits.DEFECT


@pytest.mark.usefixtures("cache_folder")
def test_ctrl_c_ends_with_130_and_one_line(tmp_path: Path) -> None:
    output = tmp_path / "c.json"
    process = subprocess.Popen(
        [sys.executable, "-m", "nsysmoe", "-v", "compare", _OFF, _ON, "-o", str(output)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stderr is not None
    assert "read" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == exits.INTERRUPTED, stderr
    assert stdout == ""
    assert "Traceback" not in stderr
    assert "Interrupted" in stderr
    assert list(tmp_path.iterdir()) == []


def test_every_command_can_be_quiet_and_verbose() -> None:
    nested = {"routing": "load", "placement": "plan", "workload": "score", "sweep": "plan"}
    for name in COMMANDS:
        for words in ([name], [name, nested.get(name, "")]):
            found = run(*filter(None, words), "--help").output
            assert "-q, --quiet" in found, words
            assert "-v, --verbose" in found, words


@pytest.mark.parametrize("place", [0, 3])
def test_quiet_says_nothing_and_answers_the_same(tmp_path: Path, place: int) -> None:
    def asked(*options: str) -> Result:
        words = ["compare", _OFF, _ON, "--format", "csv"]
        return run(*words[:place], *options, *words[place:])

    usual, quiet = asked(), asked("--quiet")
    assert usual.stderr
    assert (quiet.stderr, quiet.stdout) == ("", usual.stdout)
    assert run("-q", "summary", _OFF, "-o", tmp_path / "a.json").stderr == ""
    assert run("-q", "summary", tmp_path / "none.sqlite").stderr.startswith("Error: ")


@pytest.mark.usefixtures("cache_folder")
@pytest.mark.parametrize("place", [0, 2])
def test_verbose_tells_what_was_read_and_how_long_it_took(place: int) -> None:
    words = ["summary", _OFF]
    found = run(*words[:place], "-v", *words[place:])
    assert found.stdout == run("summary", _OFF).stdout
    assert "columns of CUPTI_ACTIVITY_KIND_KERNEL" in found.stderr
    assert re.search(r"^Reading .*: \d+\.\d\d s$", found.stderr, re.MULTILINE)
    assert re.search(r"^done in \d+\.\d\d s, at most \d+ MiB$", found.stderr, re.MULTILINE)
    assert run("summary", _OFF).stderr == "", "what one call was told the next one was not"


def test_a_name_that_is_logged_steers_nothing(tmp_path: Path) -> None:
    odd = Path(shutil.copy(_OFF, tmp_path / "a\x1b[2J.sqlite"))
    assert "\x1b" not in run("-v", "summary", odd).stderr


def test_quiet_and_verbose_exclude_each_other() -> None:
    for words in (("-q", "-v", "summary", _OFF), ("-q", "summary", "-v", _OFF)):
        found = run(*words)
        assert found.exit_code == exits.USAGE
        assert "opposite" in found.output


@pytest.mark.usefixtures("cache_folder")
def test_a_sign_of_life_on_a_terminal_and_none_in_a_pipe() -> None:
    assert b"Reading" in on_terminal("summary", _OFF)
    assert b"Reading" not in on_terminal("--quiet", "summary", _OFF)
    assert run("summary", _OFF).stderr == ""


def test_no_color() -> None:
    assert _COLOUR.search(on_terminal("compare", _OFF, _ON))
    assert not _COLOUR.search(on_terminal("compare", _OFF, _ON, NO_COLOR="1"))


def _completed(words: str) -> list[str]:
    """Return what bash would be offered after these words."""
    given = words.split(" ")
    done = subprocess.run(
        [sys.executable, "-c", "from nsysmoe.cli import main; main(prog_name='nsysmoe')"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={
            **os.environ,
            "_NSYSMOE_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(given) - 1),
        },
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_completion_of_commands_options_choices_and_files() -> None:
    assert _completed("nsysmoe comp") == ["plain,compare"]
    assert set(_completed("nsysmoe ")) >= {f"plain,{name}" for name in COMMANDS}
    assert _completed("nsysmoe compare --form") == ["plain,--format"]
    assert "plain,json" in _completed("nsysmoe compare --format ")
    assert _completed("nsysmoe routing ba") == ["plain,balance"]
    assert _completed("nsysmoe summary off") == ["file,off"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_what_the_shell_can_read(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    program = f"{sys.executable} -c 'from nsysmoe.cli import main; main(prog_name=\"nsysmoe\")'"
    script = subprocess.run(
        ["sh", "-c", f"_NSYSMOE_COMPLETE={shell}_source {program}"],
        capture_output=True, text=True, check=True, cwd=ROOT,
    ).stdout  # fmt: skip
    assert "_NSYSMOE_COMPLETE" in script
    subprocess.run([shell, "-n"], input=script, text=True, check=True, timeout=60)


def test_an_empty_path_is_no_folder() -> None:
    """A variable that was not set must not stand for the folder that one happens to be in."""
    for arguments in (["info", ""], ["compare", "", ""], ["summary", _OFF, "-o", ""]):
        found = run(*arguments)
        assert found.exit_code == exits.USAGE
        assert "the path is empty" in found.stderr


def test_rights_are_judged_by_opening(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One line and the code of an input that cannot be used, as for one that is not there."""
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    assert run("summary", _OFF).exit_code == 0

    def denied(self: Path) -> list[Path]:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "iterdir", denied)
    found = run("summary", tmp_path)
    assert found.exit_code == exits.REFUSED
    assert found.stderr == (
        f"Error: {tmp_path} cannot be read (Permission denied); check the path and its rights\n"
    )
