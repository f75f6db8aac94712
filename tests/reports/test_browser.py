"""The HTML page in a real Chromium: no error, no request, and hostile names stay text."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import nsysmoe
from fixtures.builder import TraceBuilder
from nsysmoe.analysis.comparing.report import report
from nsysmoe.reports import render
from nsysmoe.reports.pages.comparing.comparison import comparison_page
from nsysmoe.reports.pages.comparing.report import report_page
from tests.conftest import TABLE1
from tests.fuzz.hostile import HTML
from tests.reports.test_formats import HOSTILE

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's package chromium")


def opened_in_chromium(page: Path, profile: Path) -> tuple[str, str]:
    """Return the page's DOM after its scripts ran, and what the browser logged."""
    done = subprocess.run(
        [
            CHROMIUM or "",
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            f"--user-data-dir={profile}",
            "--enable-logging=stderr",
            "--v=0",
            "--virtual-time-budget=5000",
            "--dump-dom",
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return done.stdout, done.stderr


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("page")
    comparison = nsysmoe.compare(
        TABLE1 / "eplb_off.csv", TABLE1 / "eplb_on.csv", candidate_label=HOSTILE
    )
    page = folder / "page.html"
    page.write_text(render(comparison_page(comparison, full=True), "html"), encoding="utf-8")
    return opened_in_chromium(page, folder / "profile")


def test_tables_and_picture_are_there(opened: tuple[str, str]) -> None:
    dom, _ = opened
    assert re.search(r"102,664</td>\s*<td[^>]*>108,419", dom)
    assert dom.count('class="main-svg"') >= 1
    assert dom.count('class="point"') == 8, "four kernels in two arms"


def test_nothing_is_logged_or_asked_for(opened: tuple[str, str]) -> None:
    _, log = opened
    assert "CONSOLE" not in log, log
    assert "Refused to" not in log


def test_hostile_labels_stay_text(opened: tuple[str, str]) -> None:
    dom, _ = opened
    without_scripts = re.sub(r"<script.*?</script>", "", dom, flags=re.DOTALL)
    assert "<img" not in without_scripts
    assert "&lt;img src=x onerror=alert(1)&gt;" in without_scripts


def test_hostile_names_of_a_trace_stay_text(tmp_path: Path) -> None:
    """Kernels, processes, GPUs, hosts' warnings and ranges that are called like markup."""
    paths = []
    for arm in ("off", "on"):
        build = TraceBuilder().gpu(0, HTML).gpu(1, HTML)
        for pid, device in ((1000, 0), (2000, 1)):
            build.process(pid, HTML).device(pid, device, device)
            for step in range(20):
                at = 10_000 * step
                build.range(f"execute_context_0(0)_generation_8(8){HTML}", at, 9_000, pid=pid)
                for name, start in (
                    (f"fused_moe_kernel<{HTML}>", 100),
                    (f"ncclDevKernel_AllReduce_Sum_bf16_RING_LL({HTML})", 2000),
                    (f"</script>{HTML}", 4000),
                ):
                    build.kernel(name, at + start + 100 * device, 900, device=device, pid=pid)
        build.diagnostics.append((2, HTML))
        paths.append(build.write(tmp_path / f"{arm}.sqlite"))
    found = report(*paths)
    page = tmp_path / "report.html"
    page.write_text(render(report_page(found.comparison, found.portraits), "html"))
    dom, log = opened_in_chromium(page, tmp_path / "profile")
    assert "CONSOLE" not in log, log
    without_scripts = re.sub(r"<script.*?</script>", "", dom, flags=re.DOTALL)
    assert "<img" not in without_scripts
    assert without_scripts.count('class="main-svg"') >= 1
