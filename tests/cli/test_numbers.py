"""Numbers that options take."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import pytest

from nsysmoe.cli import main

if TYPE_CHECKING:
    from collections.abc import Iterator


def options(
    command: click.Command, names: tuple[str, ...] = ()
) -> Iterator[tuple[str, click.Parameter]]:
    context = click.Context(command)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from options(found, (*names, name))
    for parameter in command.params:
        yield " ".join((*names, parameter.name or "")), parameter


def test_no_option_takes_what_is_no_number() -> None:
    """NaN passes click's own ranges, and turned up as a crash far from the option."""
    found = [
        (name, parameter)
        for name, parameter in options(main)
        if parameter.type.name.startswith("float")
    ]
    assert len(found) > 20
    for name, parameter in found:
        with pytest.raises(click.BadParameter):
            parameter.type.convert("nan", parameter, None)
        if name.rpartition(" ")[2] != "request_rate":
            with pytest.raises(click.BadParameter):
                parameter.type.convert("inf", parameter, None)
