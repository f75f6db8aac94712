"""What to capture: frozen values that a command line or a program fills in."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from nsysmoe.errors import CaptureError

Mode = Literal["offline", "server"]
Arm = Literal["off", "on"]
Rearrange = Literal["before", "inside", "any"]
Profile = Literal["nsys", "outside"]

# What does not change what a run measures: another number of runs continues a capture.
_NOT_IN_DIGEST = (
    "allow_code_loads",
    "runs",
    "arms",
    "start_timeout_s",
    "run_timeout_s",
    "end_timeout_s",
)


@dataclass(frozen=True)
class Layout:
    """How ranks share the model; expert parallelism spans all of them."""

    tensor: int
    data: int

    @property
    def ranks(self) -> int:
        """GPUs that it takes."""
        return self.tensor * self.data


def layout_of(expert: int | None, tensor: int | None, data: int | None) -> Layout:
    """Return the layout that options ask for.

    ``expert`` alone is the paper's: data parallel over as many, tensor parallel 1.

    Raises:
        CaptureError: Options contradict one another, or there are none.
    """
    if expert is None and tensor is None and data is None:
        raise CaptureError(
            "how many GPUs share the experts is not known; add --expert-parallel N "
            "(or --tensor-parallel, --data-parallel)"
        )
    if expert is None:
        return Layout(tensor or 1, data or 1)
    if tensor is None:
        tensor = expert // data if data else 1
    if data is None:
        data = expert // tensor
    if tensor * data != expert:
        raise CaptureError(
            f"expert parallel {expert} is not tensor parallel {tensor} times data parallel "
            f"{data}; vLLM spreads experts over all of them"
        )
    return Layout(tensor, data)


@dataclass(frozen=True)
class Balancing:
    """Options of EPLB; None leaves vLLM's default."""

    window: int = 1000
    interval: int = 3000
    redundant: int = 0
    is_async: bool | None = None
    communicator: str | None = None
    logs: bool = False


@dataclass(frozen=True)
class Workload:
    """The requests: a file of prompts, or random ones of one length.

    Attributes:
        prompts_file: JSON lines with ``prompt`` or ``prompt_token_ids``, and ``max_tokens``.
        prompts_digest: Of that file; None for random prompts.
        count: Requests of one round.
        input_tokens: Length of a random prompt.
        output_tokens: Tokens that each request is given.
        vocabulary: Random token ids stay below it.
        seed: Of the random prompts, and of vLLM.
        warm_rounds: Rounds of them, at least, before the measured one. The last is the control:
            what the measured round costs without a profiler. Which requests share a step differs
            from round to round, and each new kind of step may compile kernels.
    """

    prompts_file: str | None = None
    prompts_digest: str | None = None
    count: int = 32
    input_tokens: int = 256
    output_tokens: int = 64
    vocabulary: int = 32000
    seed: int = 0
    warm_rounds: int = 6


@dataclass(frozen=True)
class Engine:
    """Options of vLLM that both arms share."""

    max_sequences: int = 32
    max_step_tokens: int = 8192
    max_model_tokens: int | None = None
    dtype: str = "auto"
    load_format: str = "auto"
    skip_tokenizer: bool = False
    layers: int | None = None
    is_eager: bool = False
    all2all: str | None = None
    memory_share: float = 0.9
    more: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class DummyWeights:
    """Weights for experiments without any: deviation of the normal draw, and the router's skew."""

    deviation: float | None = None
    router_skew: float | None = None


@dataclass(frozen=True)
class Spec:
    """A whole capture.

    Attributes:
        model: Name or folder of the model.
        vllm: Version to plan for.
        layout: How ranks share the model.
        arms: EPLB off, on, or both, in the order in which they alternate.
        runs: Runs of each arm.
        mode: vLLM as a library in a script, or as a server under load.
        profile: Whether nsys is started here or was started around us.
        routed_experts: Whether to keep the experts that tokens chose; None where vLLM can.
        allow_code_loads: Whether a run counts into whose range code was loaded.
        multicast: Whether NVLink multicast may be used.
        environment: Variables of the user's, for vLLM.
        nsys: The program.
        python: The interpreter that has vLLM.
        export_json: Whether this nsys can export the payloads of ranges.
        port: Of the server, or where data-parallel ranks meet.
    """

    model: str
    vllm: str
    layout: Layout
    arms: tuple[Arm, ...] = ("off", "on")
    runs: int = 5
    mode: Mode = "offline"
    profile: Profile = "nsys"
    workload: Workload = field(default_factory=Workload)
    engine: Engine = field(default_factory=Engine)
    balancing: Balancing = field(default_factory=Balancing)
    dummy: DummyWeights = field(default_factory=DummyWeights)
    rearrange: Rearrange = "before"
    routed_experts: bool | None = None
    allow_code_loads: bool = False
    multicast: bool = False
    environment: tuple[tuple[str, str], ...] = ()
    nsys: str = "nsys"
    python: str = "python3"
    export_json: bool = True
    port: int = 8000
    start_timeout_s: float = 900.0
    run_timeout_s: float = 1800.0
    end_timeout_s: float = 10.0

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values; the user's variables by name alone, since values may be secrets."""
        values = asdict(self)
        values["environment"] = [name for name, _ in self.environment]
        return values

    def digest(self) -> str:
        """Return what tells captures apart whose runs do not belong together."""
        values = {key: value for key, value in asdict(self).items() if key not in _NOT_IN_DIGEST}
        text = json.dumps(values, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]
