"""Work in threads: one that is refused stops the others, and a block that fails waits for none."""

from __future__ import annotations

from threading import Event

import pytest

from nsysmoe.stopping import Threads, results, stop, stoppable


def _waits(begun: Event) -> None:
    stopped = Event()
    with stoppable(stopped.set):
        begun.set()
        assert stopped.wait(60)
    raise TimeoutError


def _fails_after(begun: Event) -> None:
    assert begun.wait(60)
    raise ValueError


@pytest.mark.parametrize("tasks", [(_waits, _fails_after), (_fails_after, _waits)])
def test_the_first_refusal_is_told_and_stops_the_others(tasks: tuple[object, object]) -> None:
    begun = Event()
    with pytest.raises(ValueError, match=r"^$"), Threads(2) as threads:
        results([threads.submit(task, begun) for task in tasks])  # type: ignore[arg-type]


def test_all_results_come_in_order() -> None:
    with Threads(2) as threads:
        assert results([threads.submit(abs, number) for number in (-2, -1, 3)]) == [2, 1, 3]


def test_threads_below_threads_are_stopped_and_others_are_not() -> None:
    begun, other = Event(), Event()

    def below() -> None:
        with Threads(1) as threads:
            results([threads.submit(_waits, begun)])

    with stoppable(other.set), pytest.raises(ValueError, match=r"^$"), Threads(2) as threads:
        results([threads.submit(below), threads.submit(_fails_after, begun)])
    assert not other.is_set()


def test_stop_reaches_everything_once_more() -> None:
    calls: list[int] = []
    with stoppable(lambda: calls.append(1)):
        stop()
        stop()
    stop()
    assert calls == [1, 1]
