"""Small models with random weights, and one with a tokenizer on disk."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

_COMMON = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_experts_per_tok": 3,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "initializer_range": 0.2,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "qwen3_moe": {
        **_COMMON, "num_experts": 8, "moe_intermediate_size": 16, "head_dim": 8,
        "norm_topk_prob": True,
    },
    "mixtral": {**_COMMON, "num_local_experts": 8},
    "olmoe": {**_COMMON, "num_experts": 8},
}  # fmt: skip
WORDS = [f"w{number}" for number in range(60)]


def config_file(folder: Path, kind: str = "qwen3_moe", **changes: Any) -> Path:
    """Write a config.json for random weights."""
    folder.mkdir(parents=True, exist_ok=True)
    values = {"model_type": kind, **CONFIGS.get(kind, _COMMON), **changes}
    (folder / "config.json").write_text(json.dumps(values), encoding="utf-8")
    return folder


def prompts_file(path: Path, lengths: list[int]) -> Path:
    """Write prompts of so many words."""
    lines = (
        json.dumps({"prompt": " ".join(WORDS[(start + n) % 60] for n in range(length))})
        for start, length in enumerate(lengths)
    )
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def saved_model(folder: Path, **changes: Any) -> Path:
    """Save a model with random weights and a tokenizer of words."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    letters = ["A", "B", "C", "D"]
    vocabulary = {word: n for n, word in enumerate(["[PAD]", "[UNK]", *letters, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"unk_token": "[UNK]", "pad_token": "[PAD]"} | changes.pop("special", {})
    wrapped = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
    wrapped.save_pretrained(folder)
    config = transformers.AutoConfig.for_model("qwen3_moe", **{**CONFIGS["qwen3_moe"], **changes})
    torch.manual_seed(1)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder
