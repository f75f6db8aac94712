"""Options that are written for vLLM, against those that it takes: names, and allowed values.

``vllm-0.26.0.options.json`` is what ``node/nsysmoe_options.py`` prints beside the wheel of 0.26.0.
"""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from nsysmoe.capture.engine import options
from nsysmoe.capture.node.nsysmoe_options import options_of
from nsysmoe.capture.points import arms_of
from nsysmoe.capture.preflight import judge
from nsysmoe.capture.spec import ON, Arm, Balancing, Engine, Layout, Load, Spec
from nsysmoe.sweep.grid import Grid, paper_grid, runs_of
from tests.capture.specs import PAPER, SERVER, TENSOR
from tests.capture.test_preflight import FINE

if TYPE_CHECKING:
    from nsysmoe.capture.preflight import Check

RECORDED: dict[str, Any] = json.loads(
    (Path(__file__).parent / "vllm-0.26.0.options.json").read_text(encoding="utf-8")
)
KNOWN = replace(FINE, vllm_options=RECORDED)
SOURCES = {
    "engine/arg_utils.py": """
        import nothing_that_is_there
        @dataclass
        class EngineArgs:
            model: str = ModelConfig.model
            dtype: ModelDType = ModelConfig.dtype
            policy: Literal["fcfs", "priority"] = "fcfs"
            one: Literal["only"] | None = None
            size: int | Literal["auto"] = 1
            eplb_config: EPLBConfig = get_field(ParallelConfig, "eplb_config")
            def method(self) -> None:
                local: int = 3
    """,
    "config/model.py": 'ModelDType = Literal["auto", "half"]\nOther = Literal[A.b]',
    "config/parallel.py": """
        Backend = Literal["a", "b"]
        class EPLBConfig:
            window_size: int = 1000
            communicator: Backend | None = None
    """,
    "entrypoints/llm.py": """
        class LLM:
            def __init__(self, model: str, *, swap_space: float = 4, **kwargs) -> None: ...
    """,
}


def written(folder: Path, sources: dict[str, str]) -> Path:
    for name, text in sources.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("\n        ", "\n"))
    return folder


def judged(spec: Spec) -> list[Check]:
    return [check for check in judge(spec, KNOWN) if check.what == "options"]


def test_options_are_read_without_importing_vllm(tmp_path: Path) -> None:
    assert options_of(written(tmp_path, SOURCES)) == {
        "model": None, "swap_space": None, "dtype": ["auto", "half"], "size": None,
        "policy": ["fcfs", "priority"], "one": ["only"], "eplb_config": None,
        "eplb_config.window_size": None, "eplb_config.communicator": ["a", "b"],
    }  # fmt: skip


def test_an_installed_vllm_has_options() -> None:
    found = find_spec("vllm")
    if found is None or not found.submodule_search_locations:
        pytest.skip("needs vLLM's sources: pip install vllm, or PYTHONPATH")
    known = options_of(Path(found.submodule_search_locations[0]))
    assert {"model", "max_num_seqs", "eplb_config", "eplb_config.window_size"} <= known.keys()


EVERYTHING = replace(
    TENSOR,
    engine=Engine(
        all2all="allgather_reducescatter", dtype="bfloat16", load_format="dummy", layers=8,
        is_eager=True, max_model_tokens=4096, skip_tokenizer=True,
    ),
    balancing=Balancing(redundant=2, is_async=False, communicator="torch_nccl", logs=True),
    routed_experts=True,
)  # fmt: skip


@pytest.mark.parametrize("spec", [PAPER, TENSOR, SERVER, EVERYTHING])
def test_every_option_of_a_capture_is_one_of_vllms(spec: Spec) -> None:
    (check,) = judged(spec)
    assert (check.status, check.said) == ("ok", "all known to 0.26.0")


def test_every_option_of_the_papers_sweep_is_one_of_vllms() -> None:
    found = paper_grid()
    runs = runs_of(Grid(found["axes"], found["routing"], found["fixed"], repeats=1))
    arms = arms_of(runs, Layout(2, 1), {})
    assert len(arms) == 32
    for mode, load in (("offline", Load()), ("server", Load(rate=4.0))):
        spec = replace(PAPER, arms=arms, mode=mode, load=load, layout=Layout(2, 1))  # type: ignore[arg-type]
        assert [check.status for check in judged(spec)] == ["ok"]


@pytest.mark.parametrize(
    ("changed", "said", "fix"),
    [
        (Engine(more=(("max_num_seq", "4"),)), "no option max_num_seq", "is it max_num_seqs?"),
        (Engine(more=(("zzzz", "4"),)), "no option zzzz", "leave it out"),
        (Engine(all2all="deepep"), 'all2all_backend cannot be "deepep"', "deepep_low_latency"),
        (Engine(dtype="int3"), 'dtype cannot be "int3"', "bfloat16"),
        (Balancing(communicator="mpi"), 'eplb_config.communicator cannot be "mpi"', "torch_gloo"),
        (
            Engine(more=(("eplb_config", '{"use_asinc": false}'),)),
            "no option eplb_config.use_asinc",
            "is it eplb_config.use_async?",
        ),
    ],
)
def test_what_vllm_would_refuse_is_said_before(
    changed: Engine | Balancing, said: str, fix: str
) -> None:
    name = "engine" if isinstance(changed, Engine) else "balancing"
    (check,) = judged(replace(PAPER, arms=(ON,), **{name: changed}))  # type: ignore[arg-type]
    assert check.status == "fail"
    assert said in check.said
    assert fix in check.fix


def test_a_server_takes_options_beyond_its_engines() -> None:
    more = Engine(more=(("enable_auto_tool_choice", "true"),))
    (check,) = judged(replace(SERVER, engine=more))
    assert check.status == "warn"


def test_an_option_of_one_arm_alone() -> None:
    arm = Arm("typo", is_balanced=False, more=(("block_sizes", "16"),))
    assert "block_sizes" in options(replace(PAPER, arms=(arm,)).of(arm), arm)
    (check,) = judged(replace(PAPER, arms=(arm,)))
    assert "block_sizes" in check.said
