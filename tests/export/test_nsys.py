"""Reports are exported by nsys where there is one; a stand-in program plays its part here."""

from __future__ import annotations

from pathlib import Path
from time import monotonic, sleep

import pytest

import nsysmoe
from nsysmoe.errors import InputError
from nsysmoe.export.nsys import nsys_version

_FAKE = """#!/bin/sh
# nsys export --type sqlite --force-overwrite true -o OUTPUT REPORT
[ "$1" = export ] || exit 9
cp "{source}" "$7"
"""


@pytest.fixture
def report(tmp_path: Path) -> Path:
    path = tmp_path / "off.nsys-rep"
    path.write_bytes(b"\0report")
    return path


def _program(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def test_a_report_is_exported_into_a_folder_that_goes(
    report: Path, off: Path, tmp_path: Path
) -> None:
    nsys = _program(tmp_path / "nsys", _FAKE.format(source=off))
    with nsysmoe.open(report, nsys=nsys) as trace:
        assert trace.frame("moe_kernels").height == 384
        exported = trace._export.path
        assert exported.exists()
    assert not exported.exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["nsys", "off.nsys-rep"]


def test_payloads_are_asked_for_where_this_nsys_exports_them(
    report: Path, off: Path, tmp_path: Path
) -> None:
    script = f"""#!/bin/sh
case "$*" in
*--help) echo '  --include-json [true|false]' ;;
*) echo "$*" > {tmp_path}/said; cp {off} "$8" ;;
esac
"""
    with nsysmoe.open(report, nsys=_program(tmp_path / "nsys", script)) as trace:
        assert trace.has_kernels()
    assert "--include-json=true" in (tmp_path / "said").read_text()


def _runs(status: Path) -> bool:
    """Tell whether a process runs; one that nobody has waited for yet is listed, and does not."""
    try:
        return ") Z " not in status.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_an_nsys_that_does_not_answer_is_ended_with_all_that_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nsysmoe.export.nsys._LONGEST_S", 0.5)
    script = f"#!/bin/sh\nsleep 600 &\necho $! > {tmp_path}/pid\nwait\n"
    assert nsys_version(_program(tmp_path / "nsys", script)) is None
    status, ends = Path("/proc", (tmp_path / "pid").read_text().strip(), "stat"), monotonic() + 10
    while _runs(status) and monotonic() < ends:
        sleep(0.01)
    assert not _runs(status)


def test_an_nsys_says_its_version(tmp_path: Path) -> None:
    said = "#!/bin/sh\necho NVIDIA Nsight Systems version 2025.3.2.474-1\n"
    assert nsys_version(_program(tmp_path / "nsys", said)) == "2025.3.2.474"
    assert nsys_version(str(tmp_path / "none")) is None


def test_without_nsys_the_error_says_how_to_export(
    report: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match=r"no nsys on PATH.*nsys export --type sqlite -o off\.sq"):
        nsysmoe.open(report)


def test_a_failing_nsys_is_quoted(report: Path, tmp_path: Path) -> None:
    nsys = _program(tmp_path / "nsys", "#!/bin/sh\necho 'report is too new' >&2\nexit 3\n")
    with pytest.raises(InputError, match=r"report is too new"):
        nsysmoe.open(report, nsys=nsys)
