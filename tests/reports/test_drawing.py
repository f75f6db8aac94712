"""Pictures as files: a browser that does not answer is ended in time, and nothing is written."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest

from nsysmoe.errors import OutputError
from nsysmoe.reports.document import Document, Picture
from nsysmoe.reports.drawing import _Drawing, draw
from nsysmoe.reports.static import write_pictures
from tests.reports.browsers import browsers_of, is_running, never_answers
from tests.waiting import becomes

# Until browsers have started, and until they are gone.
_PATIENCE_S = 30
pytest.importorskip("kaleido", reason="pip install 'nsysmoe[static]'")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's package chromium")


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def figure(*heights: float) -> Any:
    import plotly.graph_objects as go

    return go.Figure(go.Bar(y=heights))


def are_gone(browser: Path) -> bool:
    return becomes(lambda: not any(map(is_running, browsers_of(browser))), _PATIENCE_S)


def test_a_browser_that_never_answers_is_one_line_and_gone(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    browser = never_answers(tmp_path)
    monkeypatch.setenv("BROWSER_PATH", str(browser))
    out = tmp_path / "out"
    out.mkdir()
    pictures = (Picture("One", lambda: figure(1)), Picture("Two", lambda: figure(2)))
    page = Document(title="Page", tables=(), data={}, records=(), pictures=pictures)
    with pytest.raises(OutputError, match=r"not answer for 1 s \(0 of 2 .*; see that"):
        write_pictures(page, out, "svg", patience_s=1.0)
    assert len(browsers_of(browser)) == 4, "two browsers, each with a child"
    assert are_gone(browser)
    assert list(out.iterdir()) == []
    assert list(temporary.iterdir()) == []
    assert capfd.readouterr() == ("", "")


@needs_chromium
def test_a_second_browser_draws_what_the_first_did_not(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = never_answers(tmp_path, then=CHROMIUM)
    monkeypatch.setenv("BROWSER_PATH", str(browser))
    patient, seen = _Drawing.next, list[_Drawing]()

    def next_step(self: _Drawing, patience_s: float) -> bytes | None:
        """Wait for the first browser no longer than until it has started."""
        seen.append(self)
        if self is seen[0]:
            assert becomes(lambda: bool(browsers_of(browser)), _PATIENCE_S)
            return patient(self, 0.1)
        return patient(self, patience_s)

    monkeypatch.setattr(_Drawing, "next", next_step)
    drawn = draw([figure(1), figure(2, 3)], "svg")
    assert seen[-1] is not seen[0]
    assert [picture.count(b'<g class="point">') for picture in drawn] == [1, 2]
    assert are_gone(browser)
    assert list(temporary.iterdir()) == []


@needs_chromium
@pytest.mark.usefixtures("temporary")
def test_pictures_are_drawn_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that is not there: whatever would be fetched fails, and a dollar stays one."""
    monkeypatch.setenv("CHOREO_PROXY_SERVER", "http://127.0.0.1:9")
    shown = figure(1)
    shown.update_layout(title_text="$x$")
    assert b">$x$<" in draw([shown], "svg")[0]
    assert draw([shown], "png")[0].startswith(b"\x89PNG")


def test_a_browser_that_ends_at_once_is_one_line(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROWSER_PATH", "/bin/true")
    with pytest.raises(OutputError, match=r"\(BrowserFailedError\); see that it starts"):
        draw([figure(1)], "svg")
    monkeypatch.setenv("BROWSER_PATH", str(temporary / "none"))
    with pytest.raises(OutputError, match="and Chrome or Chromium, or leave out --static"):
        draw([figure(1)], "svg")
    assert list(temporary.iterdir()) == []


def test_of_nothing_there_are_no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROWSER_PATH", "/none")
    assert draw([], "svg") == []
