"""What to capture: frozen values that a command line or a program fills in."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from nsysmoe.errors import CaptureError

if TYPE_CHECKING:
    from collections.abc import Mapping

Mode = Literal["offline", "server"]
Rearrange = Literal["before", "inside", "any"]
Profile = Literal["nsys", "outside", "none"]
Client = Literal["own", "bench"]

# What does not change what a run measures: another number of runs continues a capture.
_NOT_IN_DIGEST = (
    "allow_code_loads",
    "runs",
    # Each by itself: a folder takes new arms, but no arm that changed.
    "arms",
    "gpu_sets",
    "keeps_going",
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
class Load:
    """How requests come to the engine, and what of them is measured.

    Attributes:
        client: Of a server: ours, or ``vllm bench serve``.
        rate: Requests a second, arriving as a Poisson process; None for all at once.
        rounds: Measured rounds of a run without a profiler.
        warms_steps: Whether a step of every size runs before them, offline.
    """

    client: Client = "own"
    rate: float | None = None
    rounds: int = 1
    warms_steps: bool = True


@dataclass(frozen=True)
class Engine:
    """Options of vLLM that arms share."""

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
class Arm:
    """One side of an experiment: a name, and what differs from the spec's own; None where nothing.

    Attributes:
        name: Also of its folder.
        is_balanced: Whether EPLB is on.
        is_expert_parallel: Whether experts are spread over ranks; else each is cut.
        redundant: Replicas of experts, where EPLB is on.
        layout: How ranks share the model.
        max_sequences: Requests at once.
        max_step_tokens: Tokens of a step.
        max_model_tokens: Tokens of a request at most.
        all2all: Backend of the exchange between experts.
        more: Other options of vLLM with their values as JSON, after those of all arms.
        workload: Its requests: another file of prompts.
        labels: What run.json says of it besides, such as the routing configuration's name.
    """

    name: str
    is_balanced: bool = False
    is_expert_parallel: bool = True
    redundant: int | None = None
    layout: Layout | None = None
    max_sequences: int | None = None
    max_step_tokens: int | None = None
    max_model_tokens: int | None = None
    all2all: str | None = None
    more: tuple[tuple[str, str], ...] = ()
    workload: Workload | None = None
    labels: tuple[tuple[str, str], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values: what tells this arm from another of its name."""
        values: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return values


OFF = Arm("off")
ON = Arm("on", is_balanced=True)
EPLB_ARMS = {arm.name: arm for arm in (OFF, ON)}


def saved_arms(spec: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the arms of a saved spec by name; earlier versions saved EPLB's off and on by name."""
    arms = (EPLB_ARMS[one].to_dict() if isinstance(one, str) else one for one in spec["arms"])
    return {arm["name"]: arm for arm in arms}


@dataclass(frozen=True)
class Spec:
    """A whole capture.

    Attributes:
        model: Name or folder of the model.
        vllm: Version to plan for.
        layout: How ranks share the model.
        arms: What is compared, in the order in which they alternate.
        runs: Runs of each arm.
        mode: vLLM as a library in a script, or as a server under load.
        profile: Whether nsys is started here, was started around us, or is left out.
        load: How requests come.
        gpu_sets: GPUs, by the driver's numbers, of runs that are made at the same time; empty for
            one run at a time on those that are visible.
        keeps_going: Whether a run that fails leaves the others to be made.
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
    arms: tuple[Arm, ...] = (OFF, ON)
    runs: int = 5
    mode: Mode = "offline"
    profile: Profile = "nsys"
    workload: Workload = field(default_factory=Workload)
    load: Load = field(default_factory=Load)
    gpu_sets: tuple[tuple[str, ...], ...] = ()
    keeps_going: bool = False
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

    def of(self, arm: Arm) -> Spec:
        """Return the spec of one arm: what it differs in is taken over."""
        engine = replace(
            self.engine,
            max_sequences=arm.max_sequences or self.engine.max_sequences,
            max_step_tokens=arm.max_step_tokens or self.engine.max_step_tokens,
            max_model_tokens=arm.max_model_tokens or self.engine.max_model_tokens,
            all2all=arm.all2all or self.engine.all2all,
            more=(*self.engine.more, *arm.more),
        )
        redundant = self.balancing.redundant if arm.redundant is None else arm.redundant
        return replace(
            self,
            layout=arm.layout or self.layout,
            engine=engine,
            balancing=replace(self.balancing, redundant=redundant),
            workload=arm.workload or self.workload,
        )

    @property
    def balances(self) -> bool:
        """Tell whether any arm has EPLB on."""
        return any(arm.is_balanced for arm in self.arms)

    @property
    def ranks(self) -> int:
        """GPUs that the largest of the arms takes."""
        return max((arm.layout or self.layout).ranks for arm in self.arms)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values; the user's variables by name alone, since values may be secrets."""
        values = asdict(self)
        values["environment"] = [name for name, _ in self.environment]
        return values

    def digest(self) -> str:
        """Return what tells captures apart whose runs do not belong together."""
        values = {key: value for key, value in asdict(self).items() if key not in _NOT_IN_DIGEST}
        if self.load == Load():
            # As before there was a choice: earlier captures go on.
            del values["load"]
        text = json.dumps(values, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]
