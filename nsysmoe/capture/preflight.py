"""What must hold before a capture starts: judged on facts that were gathered elsewhere."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal

from nsysmoe.capture.engine import options
from nsysmoe.capture.plan import NSYS_OPTIONS
from nsysmoe.capture.versions import Version

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from nsysmoe.capture.spec import Spec

Status = Literal["ok", "warn", "fail"]

# A GPU whose driver and display alone hold memory.
_IDLE_BYTES = 1 << 30
# What nsys leaves of one run: report, database, and what it unpacks between them.
_BYTES_A_RUN = 1 << 30
# Options that are objects, of which this vLLM's keys are known.
_OBJECTS = ("eplb_config", "profiler_config")
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        what: What it is, in a word or two.
        status: ``ok``, ``warn`` to weigh, ``fail`` where a capture would not work or not count.
        said: What was found.
        fix: What to do about it; empty where there is nothing to do.
    """

    what: str
    status: Status
    said: str
    fix: str = ""

    def to_dict(self) -> dict[str, str]:
        """Return JSON values."""
        return asdict(self)

    def line(self) -> str:
        """Return one line for a person."""
        fix = f"; {self.fix}" if self.fix else ""
        return f"{self.status:4}  {self.what}: {self.said}{fix}"


@dataclass(frozen=True)
class Gpu:
    """A GPU that the driver lists."""

    index: int
    name: str
    used_bytes: int
    total_bytes: int


@dataclass(frozen=True)
class Facts:
    """What a machine said.

    Attributes:
        nsys: Version line of nsys; None where it cannot be run.
        nsys_options: Options of ``nsys profile`` that it knows.
        vllm: Version of vLLM; None where it cannot be imported.
        gpus: Those that processes started here may use; None where the driver cannot be asked.
        driver: Version of the driver.
        free_bytes: Free space where the capture is kept.
        port_is_free: Whether the port can be listened on; None where none is needed.
        model: The model's config.json; None where it is not at hand.
        vllm_options: Each option of this vLLM, and keys of those that are objects
            (``eplb_config.policy``), with the values that it may have, None for any; None where
            its sources do not tell.
    """

    nsys: str | None
    nsys_options: frozenset[str]
    vllm: str | None
    gpus: tuple[Gpu, ...] | None
    driver: str | None
    free_bytes: int
    port_is_free: bool | None
    model: dict[str, Any] | None
    vllm_options: Mapping[str, Sequence[Any] | None] | None = None


def judge(spec: Spec, facts: Facts) -> tuple[Check, ...]:
    """Judge every fact that this capture needs."""
    found = [_vllm(facts), *_options(spec, facts), *_gpus(spec, facts), _disk(spec, facts)]
    found.append(_multicast(spec))
    if spec.profile == "nsys":
        found.insert(0, _nsys(spec, facts))
    if facts.port_is_free is not None:
        found.append(_port(spec, is_free=facts.port_is_free))
    balanced = [spec.of(arm) for arm in spec.arms if arm.is_balanced]
    checks = [check for one in balanced for check in _experts(one, facts)]
    return tuple(dict.fromkeys((*found, *checks)))


def _nsys(spec: Spec, facts: Facts) -> Check:
    if facts.nsys is None:
        return Check(
            "nsys", "fail", f"{spec.nsys} cannot be run", "install Nsight Systems or add --nsys"
        )
    missing = [option for option in NSYS_OPTIONS if option not in facts.nsys_options]
    if missing:
        return Check(
            "nsys", "fail", f"{facts.nsys} does not know {', '.join(missing)}", "use a newer one"
        )
    return Check("nsys", "ok", facts.nsys)


def _vllm(facts: Facts) -> Check:
    if facts.vllm is None:
        return Check(
            "vLLM",
            "fail",
            "it cannot be imported",
            "name its interpreter with --python; `python -c 'import vllm'` tells more",
        )
    if not Version.parse(facts.vllm).is_known:
        return Check(
            "vLLM", "warn", f"{facts.vllm} is newer than the versions that options are known of"
        )
    return Check("vLLM", "ok", facts.vllm)


def _options(spec: Spec, facts: Facts) -> list[Check]:
    """Look for options that this vLLM would refuse, after minutes, in each run anew."""
    known = facts.vllm_options
    if known is None:
        return []
    found = []
    for name, value in dict.fromkeys(_asked(spec)):
        said = f"{facts.vllm} has no option {name}"
        if name not in known:
            close = get_close_matches(name, known, 1)
            fix = f"is it {close[0]}?" if close else "leave it out"
            # A server takes others, too, for what it does with HTTP.
            found.append(Check("options", "warn" if spec.mode == "server" else "fail", said, fix))
        elif (allowed := known[name]) and value not in map(json.dumps, (*allowed, None)):
            fix = f"choose one of {', '.join(map(str, allowed))}"
            found.append(Check("options", "fail", f"{name} cannot be {value}", fix))
    return found or [Check("options", "ok", f"all known to {facts.vllm}")]


def _asked(spec: Spec) -> Iterator[tuple[str, str]]:
    """Yield the options of all arms, and keys of those that are objects, values as JSON."""
    for arm in spec.arms:
        for name, value in options(spec.of(arm), arm).items():
            yield name, json.dumps(value)
            if name in _OBJECTS and isinstance(value, dict):
                yield from ((f"{name}.{key}", json.dumps(one)) for key, one in value.items())


def _gpus(spec: Spec, facts: Facts) -> list[Check]:
    if facts.gpus is None:
        return [Check("GPUs", "fail", "nvidia-smi cannot be run", "is this the GPU node?")]
    have, wanted = len(facts.gpus), [name for gpus in spec.gpu_sets for name in gpus]
    need = len(wanted) or spec.ranks
    by_index = {str(gpu.index): gpu for gpu in facts.gpus}
    if missing := [name for name in wanted if name not in by_index]:
        fix = "name GPUs that nvidia-smi lists and CUDA_VISIBLE_DEVICES shows"
        return [Check("GPUs", "fail", f"there is no {', '.join(missing)} among {have}", fix)]
    if have < need:
        fix = "use fewer ranks, or let CUDA_VISIBLE_DEVICES show more"
        return [Check("GPUs", "fail", f"{have}, and {need} are needed", fix)]
    used = [by_index[name] for name in wanted] or facts.gpus[:need]
    found = [Check("GPUs", "ok", f"{need} of {have}, {used[0].name}, driver {facts.driver}")]
    busy = [gpu for gpu in used if gpu.used_bytes > _IDLE_BYTES]
    if busy:
        said = ", ".join(f"GPU {gpu.index} holds {gpu.used_bytes / 2**30:.1f} GiB" for gpu in busy)
        found.append(Check("idle", "fail", said, "end what runs there, or choose other GPUs"))
    if len({gpu.name for gpu in used}) > 1:
        found.append(Check("GPUs", "warn", "they are of different models"))
    return found


def _disk(spec: Spec, facts: Facts) -> Check:
    if spec.profile == "none":
        return Check("disk", "ok", f"{facts.free_bytes / 2**30:.1f} GiB free")
    need = _BYTES_A_RUN * spec.runs * len(spec.arms)
    said = f"{facts.free_bytes / 2**30:.1f} GiB free, {need / 2**30:.0f} may be needed"
    if facts.free_bytes < _BYTES_A_RUN:
        return Check("disk", "fail", said, "choose another -o")
    if facts.free_bytes < need:
        return Check("disk", "warn", said, "choose another -o, or fewer --runs")
    return Check("disk", "ok", said)


def _port(spec: Spec, *, is_free: bool) -> Check:
    if is_free:
        return Check("port", "ok", f"{spec.port} is free")
    return Check("port", "fail", f"{spec.port} is in use", "choose another --port")


def _multicast(spec: Spec) -> Check:
    if spec.multicast:
        return Check("multicast", "warn", "NVLink multicast is allowed: not on a shared host")
    return Check("multicast", "ok", "off for NCCL, NVSHMEM, torch and vLLM")


def _experts(spec: Spec, facts: Facts) -> list[Check]:
    experts = _count_experts(facts.model)
    found = _architecture(spec, facts.model)
    if experts is None:
        said = "the model's config.json is not at hand, experts are not counted"
        return [*found, Check("experts", "warn", said)]
    ranks, redundant = spec.layout.ranks, spec.balancing.redundant
    physical = experts + redundant
    said = f"{experts} and {redundant} redundant over {ranks} GPUs"
    if physical % ranks:
        more = -physical % ranks
        fix = f"--redundant-experts {redundant + more} would divide"
        return [*found, Check("experts", "fail", f"{said} do not divide", fix)]
    if physical == ranks:
        fix = "add --redundant-experts, or use fewer GPUs"
        return [*found, Check("experts", "warn", f"{said}: one a GPU cannot be balanced", fix)]
    return [*found, Check("experts", "ok", said)]


def _count_experts(model: dict[str, Any] | None) -> int | None:
    for key in _EXPERTS:
        if model and isinstance(model.get(key), int):
            return int(model[key])
    return None


def _architecture(spec: Spec, model: dict[str, Any] | None) -> list[Check]:
    version = Version.parse(spec.vllm)
    names = (model or {}).get("architectures") or []
    unknown = [name for name in names if not version.balances(name)]
    if not unknown:
        return []
    said = f"vLLM {version} has no EPLB for {unknown[0]}"
    return [Check("EPLB", "fail", said, "upgrade vLLM, or capture --eplb off alone")]
