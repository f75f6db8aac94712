"""Routers of Hugging Face's MoE models, read and changed by hooks on their outputs."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nsysmoe.errors import InputError, MissingDataError
from nsysmoe.model.reroute import reroute

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from nsysmoe.model.clock import Stopwatch
    from nsysmoe.model.reroute import Rows

# model_type and the class of its routers, whose forward returns (logits, scores, experts) with
# scores and experts of the shape [rows, k].
ROUTERS = {
    "qwen3_moe": "Qwen3MoeTopKRouter",
    "mixtral": "MixtralTopKRouter",
    "olmoe": "OlmoeTopKRouter",
}
# Before 5.0 a router was a Linear that returned logits, and the choice was made inside the layer.
MAJOR_VERSION = 5
# How configurations call their number of experts; a model without any is dense.
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")


@dataclass(frozen=True)
class Routers:
    """The routers of a model.

    Attributes:
        modules: One a MoE layer, in order.
        experts: Of each layer.
        top_k: Experts that a token chooses.
    """

    modules: tuple[Any, ...]
    experts: int
    top_k: int


def check_version(version: str) -> None:
    """Refuse a version of transformers whose routers are built differently.

    Raises:
        MissingDataError: It is not of the major version that the hooks are for.
    """
    if version.split(".", maxsplit=1)[0] != str(MAJOR_VERSION):
        raise MissingDataError(
            f"hooks are for routers as transformers {MAJOR_VERSION} builds them, and {version} is "
            f"installed: pip install 'transformers>={MAJOR_VERSION},<{MAJOR_VERSION + 1}'"
        )


def check_config(config: Any, source: str) -> None:
    """Refuse a model that has no experts, or none that the hooks know.

    Args:
        config: Configuration of transformers, read before any weight.
        source: Where it is from, for the message.

    Raises:
        InputError: The model is dense, or of a class without hooks.
    """
    if config.model_type in ROUTERS:
        return
    if not any(getattr(config, name, None) for name in _EXPERTS):
        raise InputError(
            f"{source} is dense (model_type {config.model_type}): it has no experts to balance"
        )
    raise InputError(
        f"{source} has model_type {config.model_type}, for whose routers there are no hooks; "
        f"there are for {', '.join(ROUTERS)}"
    )


def routers_of(model: Any, source: str) -> Routers:
    """Find the routers of a model.

    Raises:
        InputError: It has none that are known.
    """
    names = set(ROUTERS.values())
    found = tuple(module for module in model.modules() if type(module).__name__ in names)
    if not found:
        raise InputError(f"{source} ({type(model).__name__}) has no layer with experts")
    return Routers(found, int(found[0].num_experts), int(found[0].top_k))


@contextmanager
def watched(routers: Routers, see: Callable[[Tensor], None]) -> Iterator[None]:
    """Show ``see`` the experts of every layer in turn, shape [rows, k], while the block runs."""

    def hook(_module: Any, _inputs: Any, output: tuple[Tensor, Tensor, Tensor]) -> None:
        see(output[2])

    with _hooked(routers, hook):
        yield


@contextmanager
def rerouted(routers: Routers, rows: Rows, stopwatch: Stopwatch | None = None) -> Iterator[None]:
    """Let padding go to the least used experts in every layer while the block runs.

    Scores stay those that the router gave, in its order. A batch without padding has no hooks.

    Args:
        routers: Of the model.
        rows: Which rows of the batch are padding.
        stopwatch: Measures the rerouting by itself, layer by layer.
    """

    def hook(_module: Any, _inputs: Any, output: tuple[Tensor, Tensor, Tensor]) -> Any:
        logits, scores, experts = output
        if stopwatch is None:
            return logits, scores, reroute(experts, rows, routers.experts)
        with stopwatch.running():
            moved = reroute(experts, rows, routers.experts)
        return logits, scores, moved

    if not rows.paddings:
        yield
        return
    with _hooked(routers, hook):
        yield


@contextmanager
def _hooked(routers: Routers, hook: Callable[..., Any]) -> Iterator[None]:
    with ExitStack() as stack:
        for module in routers.modules:
            stack.callback(module.register_forward_hook(hook).remove)
        yield
