"""From the points of a sweep to arms of a capture."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsysmoe.capture.spec import Arm, Layout
from nsysmoe.errors import CaptureError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nsysmoe.capture.spec import Workload
    from nsysmoe.sweep.grid import Run, Value

_UNSAFE = re.compile(r"[^A-Za-z0-9._=,+-]+")
_LONGEST_NAME = 120
# Options of vLLM that an arm holds by name, and what they are called there.
_NUMBERS = {
    "max-num-seqs": "max_sequences",
    "max-num-batched-tokens": "max_step_tokens",
    "max-model-len": "max_model_tokens",
    "num-redundant-experts": "redundant",
}
_TENSOR, _DATA = "tensor-parallel-size", "data-parallel-size"
_SWITCHES = {"enable-expert-parallel": "is_expert_parallel", "enable-eplb": "is_balanced"}


def arms_of(
    runs: Sequence[Run], layout: Layout, workloads: Mapping[str, Workload]
) -> tuple[Arm, ...]:
    """Return an arm a point, in the order of the runs.

    Args:
        runs: Of a grid; repeats of a point are one arm.
        layout: Of points that do not set their own.
        workloads: Of each data set, by its name in the grid.

    Raises:
        CaptureError: An option that decides how a run is planned has a value of another kind.
    """
    points = {run.point: run for run in runs}
    arms, names = [], set[str]()
    for run in points.values():
        name = _name(run)
        if name in names or len(name) > _LONGEST_NAME:
            digest = hashlib.sha256(run.point.encode()).hexdigest()[:8]
            name = f"{name[:_LONGEST_NAME]}-{digest}"
        names.add(name)
        arms.append(_arm(name, run, layout, workloads))
    return tuple(arms)


def _name(run: Run) -> str:
    """Return a name for a folder: the point, with a data set's file alone."""
    point = run.point.removesuffix(f",{run.dataset}") if run.dataset else run.point
    parts = [point, *([Path(run.dataset).stem] if run.dataset else [])]
    return _UNSAFE.sub("-", ",".join(parts)).lstrip(".-=,+") or "point"


def _arm(name: str, run: Run, layout: Layout, workloads: Mapping[str, Workload]) -> Arm:
    settings = dict(run.settings)
    known: dict[str, Any] = {
        ours: _positive(theirs, settings.pop(theirs))
        for theirs, ours in _NUMBERS.items()
        if theirs in settings
    }
    for theirs, ours in _SWITCHES.items():
        known[ours] = _switch(theirs, settings.pop(theirs, False))
    if backend := settings.pop("all2all-backend", None):
        known["all2all"] = str(backend)
    labels = {"routing": run.routing, **({"dataset": run.dataset} if run.dataset else {})}
    return Arm(
        name=name,
        **known,
        layout=_layout(settings, layout),
        more=tuple((key.replace("-", "_"), _json(value)) for key, value in settings.items()),
        workload=workloads[run.dataset] if run.dataset else None,
        labels=tuple(labels.items()),
    )


def _layout(settings: dict[str, Value], layout: Layout) -> Layout | None:
    """Take the layout out of the settings; None where they do not name one."""
    if not {_TENSOR, _DATA} & set(settings):
        return None
    tensor = settings.pop(_TENSOR, layout.tensor)
    data = settings.pop(_DATA, layout.data)
    return Layout(_positive(_TENSOR, tensor), _positive(_DATA, data))


def _positive(name: str, value: Value) -> int:
    least = 0 if name == "num-redundant-experts" else 1
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise CaptureError(f"{name} of the sweep must be a number from {least}, not {value}")
    return value


def _switch(name: str, value: Value) -> bool:
    if not isinstance(value, bool):
        raise CaptureError(f"{name} of the sweep must be true or false, not {value}")
    return value


def _json(value: Value) -> str:
    """Return a value as JSON; a text that is an object or a list already is one."""
    if isinstance(value, str) and value[:1] in {"{", "["}:
        try:
            json.loads(value)
        except ValueError:
            return json.dumps(value)
        return value
    return json.dumps(value)
