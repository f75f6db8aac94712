"""Offline batches: prompts filled up to the longest of their batch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nsysmoe.errors import InputError, MissingDataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Ints = NDArray[np.int64]

_SETTING = re.compile(r"([1-9]\d{0,5})x([1-9]\d{0,5})")


@dataclass(frozen=True)
class Setting:
    """So many batches of so many prompts."""

    size: int
    count: int

    @property
    def name(self) -> str:
        """As the slides write it: 8x50."""
        return f"{self.size}x{self.count}"

    @property
    def prompts(self) -> int:
        """Prompts of all batches."""
        return self.size * self.count


@dataclass(frozen=True)
class Batch:
    """One batch.

    Attributes:
        prompts: Numbers of the prompts, in the order of rows.
        tokens: Ids, int64, shape [prompts, longest]; filled up on the right.
        mask: 1 for a real token, 0 for padding; int64, same shape.
    """

    prompts: tuple[int, ...]
    tokens: Ints
    mask: Ints

    @property
    def real(self) -> int:
        """Tokens that are no padding."""
        return int(self.mask.sum())

    @property
    def padding(self) -> int:
        """Tokens that are."""
        return self.mask.size - self.real


def settings_of(text: str) -> tuple[Setting, ...]:
    """Read ``8x50,16x20``: batch size x number of batches.

    Raises:
        InputError: It is of another form, or names one twice.
    """
    found = []
    for part in text.split(","):
        match = _SETTING.fullmatch(part.strip())
        if match is None:
            raise InputError(f"{part.strip()!r} is not SIZExCOUNT, such as 8x50")
        found.append(Setting(int(match[1]), int(match[2])))
    if len(set(found)) < len(found):
        raise InputError(f"{text} names a setting twice")
    return tuple(found)


def check_enough(setting: Setting, prompts: int) -> None:
    """Refuse a setting that takes more prompts than there are.

    Raises:
        MissingDataError: It does.
    """
    if prompts < setting.prompts:
        raise MissingDataError(
            f"{setting.name} takes {setting.prompts} prompts, and there are {prompts}; name fewer "
            "batches or more prompts"
        )


def batches_of(
    prompts: Sequence[Ints], setting: Setting, pad_token: int, *, is_sorted: bool
) -> list[Batch]:
    """Deal the first prompts to batches, in their order or by length.

    Args:
        prompts: Token ids of each prompt.
        setting: How many, of what size.
        pad_token: Fills rows up.
        is_sorted: Sort those prompts by length first, so that batches are of prompts alike.

    Raises:
        MissingDataError: There are fewer prompts than the setting takes.
    """
    check_enough(setting, len(prompts))
    order = np.arange(setting.prompts)
    if is_sorted:
        lengths = [len(prompt) for prompt in prompts[: setting.prompts]]
        order = np.argsort(lengths, kind="stable")
    return [
        _filled_up(prompts, tuple(map(int, row)), pad_token)
        for row in order.reshape(setting.count, setting.size)
    ]


def _filled_up(prompts: Sequence[Ints], numbers: tuple[int, ...], pad_token: int) -> Batch:
    lengths = np.array([len(prompts[number]) for number in numbers])
    mask = (np.arange(lengths.max()) < lengths[:, None]).astype(np.int64)
    tokens = np.full(mask.shape, pad_token, dtype=np.int64)
    tokens[mask == 1] = np.concatenate([prompts[number] for number in numbers])
    return Batch(numbers, tokens, mask)
