"""Views of many rows as numpy arrays, batch by batch: a frame would hold them several times."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from nsysmoe.trace import Trace

# What stands for NULL among integers; nsys writes none that is negative.
_NULL = -1


def read_arrays(trace: Trace, view: str, kinds: Mapping[str, str]) -> dict[str, NDArray[Any]]:
    """Return columns of a public view as arrays, in the order of its rows.

    Args:
        trace: The trace.
        view: The view.
        kinds: Column to the type of its array (``int32``, ``bool``); NULL is -1, or False.

    Raises:
        NsysmoeError: The input cannot be used.
    """
    import numpy as np  # noqa: PLC0415 - with what needs it

    found: dict[str, list[NDArray[Any]]] = {name: [] for name in kinds}
    for batch in trace.batches(view, tuple(kinds)):
        for name, kind in kinds.items():
            filled = batch.column(name).fill_null(False if kind == "bool" else _NULL)
            array = filled.to_numpy(zero_copy_only=False)
            found[name].append(array.astype(kind))
    # One column after the other, so that no more than one is held twice.
    return {
        name: np.concatenate(found.pop(name) or [np.empty(0, kind)]) for name, kind in kinds.items()
    }
