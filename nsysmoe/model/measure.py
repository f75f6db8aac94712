"""Batches through a model with and without rerouting: what experts got, and how long it took."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from nsysmoe.errors import InputError, MissingDataError
from nsysmoe.model.batches import Setting, batches_of, check_enough
from nsysmoe.model.build import implementation_of, load, use_experts
from nsysmoe.model.clock import Stopwatch
from nsysmoe.model.extra import torch, transformers
from nsysmoe.model.passes import (
    answers_of,
    choices_of,
    counts_of,
    difference,
    differences_together,
    see,
    timed,
)
from nsysmoe.model.questions import letter_tokens, read_questions
from nsysmoe.routing.padded import (
    BASELINE,
    REROUTED,
    counts_name,
    new_folder,
    run_name,
    write_choices,
    write_record,
)
from nsysmoe.workload.prompts import read_prompts
from nsysmoe.workload.tokenizers import WHITESPACE, tokenizer_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from nsysmoe.model.batches import Batch
    from nsysmoe.model.build import Loaded, Wish
    from nsysmoe.model.passes import Seen
    from nsysmoe.model.questions import Question
    from nsysmoe.routing.padded import ChoicesOfBatch


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
        settings: Batch sizes and counts.
        prompts: File of prompts; None where ``questions`` are asked.
        questions: File of multiple-choice questions, which are the prompts then.
        tokenizer: Of prompts for random weights; a model on disk brings its own.
        sorts: Whether to sort by length before batching, each in turn.
        reroutes: Measure with rerouting too.
        implementations: How experts are computed; the first while choices are recorded, all
            while time is taken. None for what the model prefers.
        timed: Batches of a setting whose time is taken, evenly spaced.
        repeats: Timed passes of each, after one to warm up.
        keeps_choices: Keep every token's choices, not only counts.
        longest: Tokens at which a prompt is cut; None for none.
        limit_s: Seconds after which no further setting is begun; what is done is kept.
    """

    settings: tuple[Setting, ...]
    prompts: Path | None = None
    questions: Path | None = None
    tokenizer: str = WHITESPACE
    sorts: tuple[bool, ...] = (False,)
    reroutes: bool = True
    implementations: tuple[str, ...] = ()
    timed: int = 5
    repeats: int = 5
    keeps_choices: bool = True
    longest: int | None = None
    limit_s: int | None = None


def run(
    wish: Wish, plan: Plan, target: Path, say: Callable[[str], None] = lambda _line: None
) -> dict[str, Any]:
    """Measure a model and write a folder (``routing.padded``).

    Args:
        wish: Which model.
        plan: What to measure.
        target: The folder; new or empty.
        say: Told when the model is ready, and each setting that is done.

    Returns:
        What ``run.json`` holds.

    Raises:
        NsysmoeError: An input cannot be used, or memory does not suffice; nothing is written.
    """
    questions = read_questions(plan.questions) if plan.questions else ()
    texts = [each.prompt for each in questions] or _texts(plan)
    for setting in plan.settings:
        check_enough(setting, len(texts))
    with new_folder(target) as folder:
        start = time.monotonic()
        loaded = load(wish)
        say(
            f"{wish.model}: {len(loaded.routers.modules)} layers with experts on "
            f"{loaded.device_name}, ready in {time.monotonic() - start:.1f} s"
        )
        bench = _Bench(loaded, plan, _token_ids(loaded, plan, texts), questions, folder)
        bench.try_out()
        is_whole = _measure_all(bench, plan, say)
        record = {**_head(loaded, plan), "is_whole": is_whole}
        record |= {"implementations": list(bench.implementations), "runs": bench.runs}
        write_record(folder, record, bench.counts)
    return record


def _measure_all(bench: _Bench, plan: Plan, say: Callable[[str], None]) -> bool:
    """Measure setting after setting; tell whether time and memory sufficed for all.

    Raises:
        MissingDataError: Memory does not suffice for the first.
    """
    start = time.monotonic()
    for setting in plan.settings:
        for is_sorted in plan.sorts:
            name = run_name(setting.name, is_sorted=is_sorted)
            if bench.runs and plan.limit_s and time.monotonic() - start > plan.limit_s:
                say(f"stopped after {plan.limit_s} s, before {name}")
                return False
            try:
                say(bench.measure(setting, is_sorted=is_sorted))
            except torch.cuda.OutOfMemoryError as error:
                message = (
                    f"{bench.loaded.device_name} has too little memory for a batch of {name} "
                    "beside the weights; name fewer --layers, smaller --batches, or --max-tokens"
                )
                if not bench.runs:
                    raise MissingDataError(message) from error
                say(message)
                return False
    return True


@dataclass
class _Arm:
    """What one arm of a setting chose, batch by batch."""

    counts: dict[str, list[NDArray[np.int64]]] = field(default_factory=dict)
    choices: list[ChoicesOfBatch] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)


class _Bench:
    """Measures one setting after another."""

    def __init__(
        self,
        loaded: Loaded,
        plan: Plan,
        prompts: list[NDArray[np.int64]],
        questions: Sequence[Question],
        folder: Path,
    ) -> None:
        self.loaded, self.plan, self.folder = loaded, plan, folder
        self.implementations = plan.implementations or (implementation_of(loaded),)
        self.prompts, self.questions = prompts, questions
        most = max((each.choices for each in questions), default=0)
        self.letters = letter_tokens(loaded.tokenizer, most) if most else []
        self.arms = [BASELINE, REROUTED] if plan.reroutes else [BASELINE]
        self.runs: list[dict[str, Any]] = []
        self.counts: dict[str, NDArray[np.int64]] = {}

    def try_out(self) -> None:
        """Compute experts in each way once: some fail only when they run.

        Raises:
            InputError: One does.
        """
        batch = batches_of(self.prompts, Setting(1, 1), self.loaded.pad_token, is_sorted=True)[0]
        for implementation in self.implementations:
            use_experts(self.loaded, implementation)
            try:
                with torch.inference_mode():
                    timed(self.loaded, batch, reroutes=False)
            except (ImportError, ValueError, RuntimeError) as error:
                reason = str(error).splitlines()[0]
                raise InputError(
                    f"experts cannot be computed by {implementation}: {reason}"
                ) from error

    def measure(self, setting: Setting, *, is_sorted: bool) -> str:
        """Measure one setting in one order; say what was done."""
        start = time.monotonic()
        batches = batches_of(self.prompts, setting, self.loaded.pad_token, is_sorted=is_sorted)
        name = run_name(setting.name, is_sorted=is_sorted)
        use_experts(self.loaded, self.implementations[0])
        with torch.inference_mode():
            recorded = self._record(name, batches)
            seen = time.monotonic()
            times = [
                self._time(batches[number], number, implementation)
                for implementation in self.implementations
                for number in _evenly(len(batches), self.plan.timed)
            ]
        self.runs.append(
            {
                "setting": setting.name,
                "size": setting.size,
                "count": setting.count,
                "sorted": is_sorted,
                "arms": self.arms,
                "batches": [_sizes(batch) for batch in batches],
                **recorded,
                "times": times,
            }
        )
        return (
            f"{name}: {len(batches)} batches seen in {seen - start:.1f} s, {len(times)} timed in "
            f"{time.monotonic() - seen:.1f} s"
        )

    def _record(self, name: str, batches: Sequence[Batch]) -> dict[str, Any]:
        """Run every batch once an arm; keep counts and choices, and compare the outputs."""
        arms = {arm: _Arm() for arm in self.arms}
        differences = []
        for batch in batches:
            seen = [see(self.loaded, batch, reroutes=arm == REROUTED) for arm in arms]
            for one, arm in zip(seen, arms.values(), strict=True):
                self._keep(one, arm)
            if len(seen) > 1:
                differences.append(difference(*seen))
        for name_of_arm, arm in arms.items():
            for which, counts in arm.counts.items():
                self.counts[counts_name(name, name_of_arm, which)] = np.stack(counts)
            if self.plan.keeps_choices:
                write_choices(self.folder, f"{name}-{name_of_arm}", arm.choices)
        return {
            "difference": differences_together(differences),
            "accuracy": self._accuracy(batches, arms) if self.questions else None,
        }

    def _keep(self, seen: Seen, arm: _Arm) -> None:
        for which, counts in counts_of(seen, self.loaded.routers.experts).items():
            arm.counts.setdefault(which, []).append(counts)
        if self.plan.keeps_choices:
            arm.choices.append(choices_of(seen))
        if self.questions:
            arm.answers += answers_of(self.loaded, seen, self.questions, self.letters)

    def _accuracy(self, batches: Sequence[Batch], arms: dict[str, _Arm]) -> dict[str, Any]:
        keys = [self.questions[number].answer for batch in batches for number in batch.prompts]
        return {
            "questions": len(keys),
            "right": {name: sum(map(int.__eq__, arm.answers, keys)) for name, arm in arms.items()},
            "changed": sum(
                len(set(pair)) > 1
                for pair in zip(*(arm.answers for arm in arms.values()), strict=True)
            ),
        }

    def _time(self, batch: Batch, number: int, implementation: str) -> dict[str, Any]:
        """Take the time of a batch, arms in turn, after a pass of each to warm up."""
        use_experts(self.loaded, implementation)
        passes: dict[str, list[int]] = {f"{arm}_ns": [] for arm in self.arms}
        for _ in range(self.plan.repeats + 1):
            for arm, times in zip(self.arms, passes.values(), strict=True):
                times.append(timed(self.loaded, batch, reroutes=arm == REROUTED))
        own = None
        if self.plan.reroutes:
            inner = Stopwatch(self.loaded.device)
            timed(self.loaded, batch, reroutes=True, inner=inner)
            own = inner.elapsed_ns()
        warm = {key: times[1:] for key, times in passes.items()}
        return {"experts": implementation, "batch": number, **warm, "reroute_ns": own}


def _sizes(batch: Batch) -> dict[str, int]:
    return {"longest": batch.mask.shape[1], "real": batch.real, "padding": batch.padding}


def _evenly(count: int, wanted: int) -> list[int]:
    """Return so many numbers below ``count``, evenly spaced."""
    some = min(count, wanted)
    return [(2 * place + 1) * count // (2 * some) for place in range(some)]


def _texts(plan: Plan) -> list[str]:
    if plan.prompts is None:
        raise MissingDataError("there is nothing to run; give --prompts or --eval")
    return list(read_prompts(plan.prompts).texts)


def _token_ids(loaded: Loaded, plan: Plan, texts: list[str]) -> list[NDArray[np.int64]]:
    """Return the tokens of each prompt, by the model's tokenizer or one for random weights."""
    if loaded.tokenizer is not None:
        ids = [np.array(each, dtype=np.int64) for each in loaded.tokenizer(texts)["input_ids"]]
    elif plan.questions is not None:
        raise MissingDataError("random weights answer no questions; --eval needs a model on disk")
    else:
        found = tokenizer_of(plan.tokenizer).encode(texts)
        ends = np.cumsum(found.lengths)[:-1]
        ids = np.split(found.stream % loaded.model.config.vocab_size, ends)
    if not all(len(each) for each in ids):
        raise MissingDataError("a prompt has no token by the model's tokenizer")
    # What is asked stands at the end of a question.
    part = slice(plan.longest) if plan.questions is None else slice(-(plan.longest or 0), None)
    return [each[part] for each in ids]


def _head(loaded: Loaded, plan: Plan) -> dict[str, Any]:
    config = loaded.model.config
    return {
        "model": loaded.wish.model,
        "is_random": loaded.wish.is_random,
        "seed": loaded.wish.seed if loaded.wish.is_random else None,
        "layers": len(loaded.routers.modules),
        "experts": loaded.routers.experts,
        "top_k": loaded.routers.top_k,
        "hidden_size": int(config.hidden_size),
        "dtype": str(next(loaded.model.parameters()).dtype).removeprefix("torch."),
        "device": loaded.device_name,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "prompts": str(plan.questions or plan.prompts),
        "tokenizer": "the model's" if loaded.tokenizer is not None else plan.tokenizer,
        "pad_token": loaded.pad_token,
        "repeats": plan.repeats,
    }
