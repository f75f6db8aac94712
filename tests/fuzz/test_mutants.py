"""Five hundred broken inputs: each ends in a right answer or in one clear line.

``python -m tests.fuzz`` judges as many as one likes; NSYSMOE_FUZZ=10000 has pytest judge that many.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.fuzz.damage import PAGE
from tests.fuzz.judge import Outcome, judge
from tests.fuzz.mutants import Mutant, make, unbroken
from tests.fuzz.pool import Draws, judged
from tests.fuzz.seeds import write_corpus

if TYPE_CHECKING:
    from collections.abc import Iterator

_SEED = 20_250_101
_MUTANTS = int(os.environ.get("NSYSMOE_FUZZ", "500"))
_WORKERS = min(2, os.cpu_count() or 1)
# As programs: each starts Python anew.
_PROGRAMS = range(1_000_000, 1_000_006)
# One request leaves nothing to judge on.
_NO_ANSWER = {("routed.npy", "advise")}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Write the seeds; what is read of them is kept where the workers keep it."""
    folder = tmp_path_factory.mktemp("corpus")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("NSYSMOE_TRACES", raising=False)
        patch.setenv("NSYSMOE_CACHE_DIR", str(folder / "cache"))
        write_corpus(folder)
        yield folder


def _told(outcomes: list[Outcome]) -> str:
    return "\n".join(outcome.line() for outcome in outcomes if outcome.kind == "defect")


def test_mutants_end_in_a_right_answer_or_one_line(corpus: Path) -> None:
    outcomes: list[Outcome] = []
    judged(Draws(corpus, _SEED), range(_MUTANTS), _WORKERS, outcomes.append)
    assert not _told(outcomes), _told(outcomes)
    kinds = [outcome.kind for outcome in outcomes]
    # A harness whose mutants were all alike would prove nothing.
    assert len(kinds) == _MUTANTS
    assert min(kinds.count("answer"), kinds.count("refused")) > _MUTANTS / 5


@pytest.mark.parametrize("is_honest", [False, True])
def test_cut_at_every_page(corpus: Path, tmp_path: Path, is_honest: bool) -> None:
    """Also where the header then says that this is all there is: the tables reach further."""
    content = (corpus / "traces" / "dp2_off.sqlite").read_bytes()
    path = tmp_path / "cut.sqlite"
    arguments = ("kernels", str(path), "--format", "json")
    for pages in range(1, len(content) // PAGE):
        changed = bytearray(content[: pages * PAGE])
        if is_honest:
            changed[28:32] = pages.to_bytes(4, "big")
        path.write_bytes(changed)
        asked = Mutant(
            pages, path, "dp2_off", f"{pages} pages", arguments, (path,), tmp_path / "no"
        )
        outcome = judge(asked)
        assert outcome.kind == "refused", outcome
        assert "truncated" in outcome.detail or "damaged" in outcome.detail


def test_what_is_not_broken_is_answered(corpus: Path, tmp_path: Path) -> None:
    for mutant in unbroken(corpus, tmp_path):
        outcome = judge(mutant)
        expected = "refused" if (mutant.source, mutant.arguments[0]) in _NO_ANSWER else "answer"
        assert outcome.kind == expected, (mutant.arguments, outcome.detail)
        mutant.output.unlink(missing_ok=True)


def test_mutants_as_programs(corpus: Path, tmp_path: Path) -> None:
    def program(number: int) -> Outcome:
        folder = tmp_path / str(number)
        folder.mkdir()
        return judge(make(corpus, _SEED, number, folder), as_program=True)

    with ThreadPoolExecutor(_WORKERS) as threads:
        outcomes = list(threads.map(program, _PROGRAMS))
    assert not _told(outcomes), _told(outcomes)


def test_a_number_tells_all_of_a_mutant(corpus: Path, tmp_path: Path) -> None:
    for number in range(40):
        made = []
        for place in ("one", "other"):
            folder = tmp_path / place / str(number)
            folder.mkdir(parents=True)
            mutant = make(corpus, _SEED, number, folder)
            made.append((mutant.change, mutant.command, mutant.path.read_bytes()))
        assert made[0] == made[1]


def test_a_worker_that_dies_is_a_defect_and_is_renewed(corpus: Path) -> None:
    outcomes: list[Outcome] = []
    # No such seed: the worker raises, and ends.
    judged(Draws(corpus / "none", _SEED), [1, 2], 1, outcomes.append)
    assert [outcome.kind for outcome in outcomes] == ["defect", "defect"]
    assert all("died" in outcome.detail for outcome in outcomes)


def test_a_worker_that_hangs_is_a_defect_and_is_ended(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No worker has started Python and judged anything by then.
    monkeypatch.setattr("tests.fuzz.pool.PATIENCE_S", 0.01)
    outcomes: list[Outcome] = []
    judged(Draws(corpus, _SEED), [1], 1, outcomes.append)
    assert [(outcome.kind, outcome.detail[:4]) for outcome in outcomes] == [("defect", "hung")]
