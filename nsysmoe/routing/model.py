"""The shape of a model's experts, from its ``config.json``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nsysmoe.bounded_files import read_json_object
from nsysmoe.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

_TYPE_BYTES = {"bfloat16": 2.0, "float16": 2.0, "float32": 4.0}
# A hundred times the widest model; products of two and the number of experts fit 64 bits.
_LARGEST = 1 << 22
_INTERMEDIATE = ("moe_intermediate_size", "intermediate_size")
_EXPERTS = ("num_local_experts", "n_routed_experts", "num_experts")


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a gated expert: w13 is [2 intermediate, hidden], w2 [hidden, intermediate].

    Attributes:
        hidden: Width of the model.
        intermediate: Inner width of one expert.
        weight_bytes: Bytes of one weight.
        experts: Logical experts of a layer; None where not given.
    """

    hidden: int
    intermediate: int
    weight_bytes: float
    experts: int | None = None

    def widths(self) -> dict[str, int]:
        """Return the columns of each product's result."""
        return {"w13": 2 * self.intermediate, "w2": self.hidden}

    def weights(self) -> dict[str, int]:
        """Return the weights of one expert's matrix, by product."""
        return {
            "w13": 2 * self.intermediate * self.hidden,
            "w2": self.hidden * self.intermediate,
        }


def read_model(
    path: Path | None,
    *,
    hidden: int | None = None,
    intermediate: int | None = None,
    weight_bytes: float | None = None,
) -> ModelShape | None:
    """Return the shape by a ``config.json`` of Hugging Face's form, overridden by what is given.

    Returns:
        None where neither tells the sizes.

    Raises:
        InputError: The file is unreadable, or tells a part only.
    """
    config = {} if path is None else read_json_object(path)
    # Multimodal models keep the language model's part under a name of its own.
    inner = config.get("text_config")
    config = inner if isinstance(inner, dict) else config
    hidden = hidden or _first(config, ("hidden_size",))
    intermediate = intermediate or _first(config, _INTERMEDIATE)
    if path is None and hidden is None and intermediate is None:
        return None
    if hidden is None or intermediate is None:
        lacking = "hidden size" if hidden is None else "intermediate size"
        raise InputError(f"the {lacking} of the model is not known: {path or 'no --config'}")
    return ModelShape(
        hidden=hidden,
        intermediate=intermediate,
        weight_bytes=weight_bytes or _weight_bytes(config, path),
        experts=_first(config, _EXPERTS),
    )


def _first(config: dict[str, Any], keys: tuple[str, ...]) -> int | None:
    for key in keys:
        value = config.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _LARGEST:
            return value
    return None


def _weight_bytes(config: dict[str, Any], path: Path | None) -> float:
    name = config.get("torch_dtype") or config.get("dtype")
    if config.get("quantization_config") is not None:
        raise InputError(f"{path} has quantized weights: give --weight-bytes")
    if not isinstance(name, str) or name not in _TYPE_BYTES:
        raise InputError(
            f"{path or 'no --config'} tells no type of the weights: give --weight-bytes"
        )
    return _TYPE_BYTES[name]
