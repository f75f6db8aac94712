"""Time on a GPU is that between events of its stream, which is waited for once, at the end."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

pytest.importorskip("torch", reason="torch is in nsysmoe[model]")
pytest.importorskip("transformers", reason="transformers is in nsysmoe[model]")

from nsysmoe.model.clock import Stopwatch


def test_spans_of_events_are_added_up(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    class Event:
        def __init__(self, *, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            self.place = len(said)
            said.append("record")

        def synchronize(self) -> None:
            said.append("wait")

        def elapsed_time(self, other: Event) -> float:
            return 0.25 * (other.place - self.place)

    monkeypatch.setattr("nsysmoe.model.clock.torch.cuda.Event", Event)
    watch = Stopwatch(SimpleNamespace(type="cuda"))
    for _ in range(2):
        with watch.running():
            assert "wait" not in said
    assert watch.elapsed_ns() == 500_000
    assert said == ["record"] * 4 + ["wait"]
    assert Stopwatch(SimpleNamespace(type="cuda")).elapsed_ns() == 0


def test_the_clock_of_a_cpu() -> None:
    watch = Stopwatch(SimpleNamespace(type="cpu"))
    with watch.running():
        pass
    assert 0 < watch.elapsed_ns() < 1e9
