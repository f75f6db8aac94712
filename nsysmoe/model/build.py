"""Models to run: from a folder on disk, or of a published shape with random weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsysmoe.bounded_files import shipped_toml
from nsysmoe.errors import InputError, MissingDataError
from nsysmoe.model.extra import torch, transformers
from nsysmoe.model.routers import Routers, check_config, check_version, routers_of

if TYPE_CHECKING:
    from collections.abc import Collection

RANDOM = "random:"
DTYPES = ("bfloat16", "float16", "float32")
_GB = 1e9
# Beside the weights there must be room for one batch, at the very least.
_SLACK = 1.02
_MEMINFO = Path("/proc/meminfo")


@dataclass(frozen=True)
class Wish:
    """Which model to run, and where.

    Attributes:
        model: A folder that transformers can read, or ``random:`` with a shape's name or with a
            config.json (or its folder).
        layers: How many of its layers; None for all.
        device: ``cpu``, ``cuda``, ``cuda:1``, …; None for a GPU where there is one.
        dtype: One of ``DTYPES``; None for bfloat16 on a GPU and float32 on a CPU.
        pad_token: Id of the padding token; None for the model's.
        seed: Of random weights.
    """

    model: str
    layers: int | None = None
    device: str | None = None
    dtype: str | None = None
    pad_token: int | None = None
    seed: int = 0

    @property
    def is_random(self) -> bool:
        """Whether weights are drawn."""
        return self.model.startswith(RANDOM)


@dataclass(frozen=True)
class Loaded:
    """A model that is ready to run.

    Attributes:
        wish: What was asked for.
        model: Of transformers, in evaluation mode, on its device.
        routers: Its routers.
        tokenizer: Its own; None for random weights.
        pad_token: Id that fills rows up.
    """

    wish: Wish
    model: Any
    routers: Routers
    tokenizer: Any
    pad_token: int

    @property
    def device(self) -> Any:
        """Where it is."""
        return next(self.model.parameters()).device

    @property
    def device_name(self) -> str:
        """What that is called."""
        if self.device.type != "cuda":
            return str(self.device.type)
        return str(torch.cuda.get_device_name(self.device))


def load(wish: Wish) -> Loaded:
    """Load or make a model.

    Raises:
        MissingDataError: torch and transformers are not installed, of another version, or there
            is no such device or too little memory.
        InputError: There is no such model, it is dense or has no hooks, or no padding token.
    """
    check_version(transformers.__version__)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    device = _device(wish.device)
    dtype = getattr(torch, wish.dtype or ("float32" if device.type == "cpu" else "bfloat16"))
    config = _config(wish)
    tokenizer = None if wish.is_random else _tokenizer(wish.model)
    pad_token = _pad_token(wish, config, tokenizer)
    _check_memory(wish, config, dtype, device)
    if wish.is_random:
        model = _random(config, dtype, device, wish.seed)
    else:
        model = _read(wish.model, config, dtype, device)
    return Loaded(wish, model.eval(), routers_of(model, wish.model), tokenizer, pad_token)


def use_experts(loaded: Loaded, implementation: str) -> None:
    """Choose how the products of the experts are computed.

    Args:
        loaded: The model.
        implementation: ``eager`` (an expert after another), ``grouped_mm`` (all in one kernel),
            or another name of transformers.

    Raises:
        InputError: This version of transformers, or this device, cannot.
    """
    try:
        loaded.model.set_experts_implementation(implementation)
    except (ValueError, KeyError, ImportError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"experts cannot be computed by {implementation}: {reason}") from error


def implementation_of(loaded: Loaded) -> str:
    """Return how the products of the experts are computed."""
    # The method that tells it came after 5.0.
    return str(getattr(loaded.model.config, "_experts_implementation", None) or "eager")


def shapes() -> dict[str, dict[str, Any]]:
    """Return the published shapes by name."""
    return shipped_toml("nsysmoe.model", "shapes.toml")


def _config(wish: Wish) -> Any:
    """Return the model's configuration with as many layers as wanted."""
    name = wish.model.removeprefix(RANDOM)
    known = shapes()
    if wish.is_random and name in known:
        config = transformers.AutoConfig.for_model(**known[name])
    else:
        config = _read_config(Path(name), known if wish.is_random else ())
    check_config(config, wish.model)
    if wish.layers is not None:
        if wish.layers > config.num_hidden_layers:
            raise InputError(
                f"{wish.model} has {config.num_hidden_layers} layers; --layers asks for "
                f"{wish.layers}"
            )
        config.num_hidden_layers = wish.layers
        if getattr(config, "layer_types", None):
            config.layer_types = config.layer_types[: wish.layers]
    return config


def _read_config(path: Path, names: Collection[str]) -> Any:
    """Read a config.json; nothing is asked of a hub, and no code of the model's is run."""
    if not path.exists():
        also = f", nor a shape: {', '.join(names)}" if names else ""
        raise InputError(f"there is no model {path}: neither a folder nor a config.json{also}")
    try:
        return transformers.AutoConfig.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path} holds no model that transformers knows ({reason})") from error


def _tokenizer(path: str) -> Any:
    try:
        found = transformers.AutoTokenizer.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path} has no tokenizer that can be read ({reason})") from error
    # Without files transformers 5 makes an empty one of the model's class.
    if len(found) <= len(found.all_special_ids):
        raise InputError(f"{path} has no tokenizer: its vocabulary is empty")
    return found


def _pad_token(wish: Wish, config: Any, tokenizer: Any) -> int:
    found = (
        wish.pad_token,
        getattr(tokenizer, "pad_token_id", None),
        getattr(config, "pad_token_id", None),
    )
    known = [token for token in found if token is not None and token >= 0]
    if not known:
        raise InputError(f"{wish.model} names no padding token; give its id with --pad-token")
    if known[0] >= config.vocab_size:
        raise InputError(
            f"padding token {known[0]} is not in the vocabulary of {wish.model} "
            f"({config.vocab_size:,} entries)"
        )
    return int(known[0])


def _device(asked: str | None) -> Any:
    try:
        device = torch.device(asked or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise InputError(f"there is no device called {asked}; name cpu or cuda") from error
    if device.type != "cuda":
        return device
    if (device.index or 0) >= torch.cuda.device_count():
        raise MissingDataError(
            f"there is no {asked}: torch sees {torch.cuda.device_count()} GPUs; --device cpu"
        )
    # Events are recorded on the current device.
    torch.cuda.set_device(device.index or 0)
    return torch.device("cuda", device.index or 0)


def _check_memory(wish: Wish, config: Any, dtype: Any, device: Any) -> None:
    """Refuse before anything is made a model that does not fit."""
    with torch.device("meta"):
        empty = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)
    needed = sum(weight.numel() for weight in empty.parameters()) * dtype.itemsize
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else _free_memory()
    if free is not None and needed * _SLACK > free:
        raise MissingDataError(
            f"{wish.model} takes {needed / _GB:.1f} GB with {config.num_hidden_layers} layers in "
            f"{str(dtype).removeprefix('torch.')}, and {device} has {free / _GB:.1f} GB free; "
            "name fewer --layers or a smaller --dtype"
        )


def _free_memory() -> int | None:
    """Return the bytes that can be had without swapping; None where the system does not tell."""
    if not _MEMINFO.exists():
        return None
    lines = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines() if ":" in line)
    return int(lines["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in lines else None


def _random(config: Any, dtype: Any, device: Any, seed: int) -> Any:
    """Make the weights on the device itself: a CPU would take minutes."""
    torch.manual_seed(seed)
    with torch.device(device):
        return transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)


def _read(path: str, config: Any, dtype: Any, device: Any) -> Any:
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(
            path, config=config, dtype=dtype, local_files_only=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path} holds no weights that can be read ({reason})") from error
    return model.to(device)
