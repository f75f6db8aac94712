"""`sql/` reaches every kind of installation: checkout, wheel, source distribution, editable."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import DP2, ROOT

_ASK = (
    "import nsysmoe, sys; from pathlib import Path;"
    "print(Path(nsysmoe.__file__).resolve().parent);"
    "trace = nsysmoe.open(sys.argv[1]); print(trace.frame('moe_kernels').height)"
)


def _ask(python: str, where: Path, **environment: str) -> list[str]:
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [python, "-c", _ASK, str(DP2 / "eplb_off.sqlite")],
        capture_output=True,
        text=True,
        check=True,
        cwd=where,
        env={**clean, **environment},
    )
    return done.stdout.split()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", str(folder)],
        check=True,
        capture_output=True,
        cwd=ROOT,
    )
    return folder


def test_from_a_checkout(tmp_path: Path) -> None:
    where, launches = _ask(sys.executable, tmp_path, PYTHONPATH=str(ROOT))
    assert (Path(where), launches) == (ROOT / "nsysmoe", "384")


def test_from_a_wheel(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    assert not (tmp_path / "nsysmoe" / "sql").is_symlink()
    where, launches = _ask(sys.executable, tmp_path, PYTHONPATH=str(tmp_path))
    assert (Path(where), launches) == (tmp_path / "nsysmoe", "384")


def test_from_a_source_distribution(built: Path, tmp_path: Path) -> None:
    (source,) = built.glob("*.tar.gz")
    subprocess.run(["tar", "-xzf", str(source), "-C", str(tmp_path)], check=True)
    (unpacked,) = tmp_path.iterdir()
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        check=True,
        capture_output=True,
        cwd=unpacked,
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "nsysmoe/sql/marts/moe_kernels.sql" in names
    assert "nsysmoe/reports/formats/page.html.j2" in names
    assert "nsysmoe/classes/classes.toml" in names
    assert "nsysmoe/peaks/peaks.toml" in names
    assert "nsysmoe/py.typed" in names


def test_from_an_editable_install(tmp_path: Path) -> None:
    """An environment of its own that borrows this one's packages, so that no network is needed."""
    pytest.importorskip("hatchling")
    pytest.importorskip("editables")
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "env")], check=True)
    python = str(tmp_path / "env" / "bin" / "python")
    (packages,) = (tmp_path / "env" / "lib").glob("python*/site-packages")
    borrowed = next(path for path in sys.path if path.endswith("site-packages"))
    (packages / "borrowed.pth").write_text(borrowed + "\n")
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index",
         "--no-build-isolation", "--ignore-installed", "--editable", str(ROOT)],
        check=True,
        capture_output=True,
    )  # fmt: skip
    assert (packages / "nsysmoe-0.1.0.dist-info").exists()
    where, launches = _ask(python, tmp_path)
    assert (Path(where), launches) == (ROOT / "nsysmoe", "384")
