"""Logs as arrays of tokens: by layer, in the order of requests, thinned where there are many."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nsysmoe.errors import InputError
from nsysmoe.routing.convert import open_log
from nsysmoe.routing.tokens import TokenRoutes, read_tokens


def routes(path: Path) -> TokenRoutes:
    return read_tokens([open_log(path)], 2)


@pytest.fixture
def log(tmp_path: Path) -> tuple[Path, list[np.ndarray]]:
    random = np.random.default_rng(0)
    arrays = [random.integers(0, 9, (length, 3, 2)) for length in (4, 6, 5)]
    path = tmp_path / "a.npz"
    np.savez(path, **{f"r{number}": each for number, each in enumerate(arrays)})  # type: ignore[arg-type]
    return path, arrays


def test_every_token_is_there_with_its_request(log: tuple[Path, list[np.ndarray]]) -> None:
    path, arrays = log
    found = routes(path)
    assert found.layers == (0, 1, 2)
    for layer in range(3):
        expected = np.concatenate([each[:, layer] for each in arrays])
        assert (found.chosen[layer] == expected).all()
        assert found.requests[layer].tolist() == [0] * 4 + [1] * 6 + [2] * 5
        # The first half of each request, the larger one.
        assert found.is_first[layer].tolist() == (
            [True] * 2 + [False] * 2 + [True] * 3 + [False] * 3 + [True] * 3 + [False] * 2
        )
    assert (found.count, found.every, found.has_requests) == (3, 1, True)


def test_rows_in_any_order_are_the_same_tokens(tmp_path: Path) -> None:
    rows = [
        f"{request},{'prefill' if token < 1 else 'decode'},{layer},{token},{k},{(request + k) % 3}"
        for request in (0, 1)
        for token in range(3)
        for layer in (0, 1)
        for k in range(2)
    ]
    text = "request,phase,layer,token,k,expert\n"
    plain, turned = tmp_path / "a.csv", tmp_path / "b.csv"
    plain.write_text(text + "\n".join(rows) + "\n", encoding="utf-8")
    # Tokens of the second request first.
    turned.write_text(text + "\n".join(rows[12:] + rows[:12]) + "\n", encoding="utf-8")
    one, other = routes(plain), routes(turned)
    assert one.has_phases
    assert one.is_first[0].tolist() == [True, False, False] * 2
    for layer in (0, 1):
        assert (one.chosen[layer] == other.chosen[layer]).all()


def test_tokens_beyond_memory_are_thinned_evenly(
    log: tuple[Path, list[np.ndarray]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, arrays = log
    monkeypatch.setattr("nsysmoe.routing.tokens.LARGEST", 60)
    found = routes(path)
    assert found.every == 2
    assert (found.chosen[1] == np.concatenate([each[::2, 1] for each in arrays])).all()


def test_windows_stand_for_requests_where_there_are_too_few(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, r0=np.zeros((600, 1, 2), dtype=np.int64))
    found = routes(path)
    assert not found.has_requests
    assert np.bincount(found.requests[0]).tolist() == [256, 256, 88]


def test_counts_and_ragged_choices_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("step,layer,expert,tokens\n0,0,0,3\n", encoding="utf-8")
    with pytest.raises(InputError, match="counts"):
        routes(path)
    path.write_text("request,layer,token,k,expert\n0,0,0,0,1\n0,0,0,1,2\n0,0,1,1,1\n", "utf-8")
    with pytest.raises(InputError, match=r"2 choices each|differ in length"):
        routes(path)
