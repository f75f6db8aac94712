"""Names of hosts beside processes and devices, where a run has several."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    import polars as pl


def host_of(global_pid: int | None, hosts: Mapping[int, str]) -> str | None:
    """Return the host of a process; None where the run has one host alone."""
    return None if global_pid is None else hosts.get(global_pid >> 48)


def with_host(
    frame: pl.DataFrame,
    hosts: Mapping[int, str],
    process: str = "global_pid",
    name: str = "host",
) -> pl.DataFrame:
    """Add a column with the host; the frame as it is where the run has one host alone.

    Args:
        frame: Rows with the process in column ``process``.
        hosts: As ``Trace`` has it.
        process: The column that tells the process.
        name: What the new column is called.
    """
    if not hosts:
        return frame
    import polars as pl  # noqa: PLC0415

    machine = pl.col(process) // (1 << 48)
    return frame.with_columns(
        machine.replace_strict(dict(hosts), return_dtype=pl.String, default=None).alias(name)
    )
