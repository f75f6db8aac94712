"""Models on the CPU: rerouting moves padding and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nsysmoe.errors import InputError, MissingDataError
from nsysmoe.model.batches import Batch, Setting, batches_of
from tests.model.models import CONFIGS, config_file, saved_model

torch = pytest.importorskip("torch", reason="torch is in nsysmoe[model]")
pytest.importorskip("transformers", reason="transformers is in nsysmoe[model]")

from nsysmoe.model.build import Wish, load, use_experts  # noqa: E402 - after the skip
from nsysmoe.model.passes import counts_of, difference, see  # noqa: E402
from nsysmoe.model.routers import check_version  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

    from nsysmoe.model.build import Loaded

pytestmark = pytest.mark.filterwarnings("ignore")
torch.set_num_threads(1)
# Of the largest output, in float32: products of other sizes may add up in another order.
BOUND = 1e-5


@pytest.fixture(scope="module", params=CONFIGS)
def loaded(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    folder = config_file(tmp_path_factory.mktemp("config"), request.param)
    return load(Wish(f"random:{folder}", device="cpu", dtype="float32", seed=3))


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    """Any mask, not only of prompts that are filled up on the right; a real token in each row."""
    prompts, tokens = draw(st.integers(1, 4)), draw(st.integers(2, 9))
    mask = np.array(
        [
            draw(st.lists(st.integers(0, 1), min_size=tokens, max_size=tokens))
            for _ in range(prompts)
        ]
    )
    mask[np.arange(prompts), draw(st.integers(0, tokens - 1))] = 1
    seed = draw(st.integers(0, 1000))
    ids = np.random.default_rng(seed).integers(1, 97, mask.shape) * mask
    return Batch(tuple(range(prompts)), ids, mask)


def both(loaded: Loaded, batch: Batch, experts: str) -> tuple[Any, Any]:
    use_experts(loaded, experts)
    with torch.inference_mode():
        return see(loaded, batch, reroutes=False), see(loaded, batch, reroutes=True)


@given(batch=batches())
@settings(max_examples=25)
def test_outputs_at_real_tokens_are_equal_bit_for_bit(loaded: Loaded, batch: Batch) -> None:
    # One product a token and expert: no result depends on what else is in the batch.
    before, after = both(loaded, batch, "batched_mm")
    found = difference(before, after)
    assert found["equal"], found
    assert found["finite"]
    assert found["routes_changed"] == 0


@pytest.mark.parametrize("experts", ["eager", "grouped_mm"])
@given(batch=batches())
@settings(max_examples=10)
def test_outputs_stay_within_rounding(loaded: Loaded, experts: str, batch: Batch) -> None:
    found = difference(*both(loaded, batch, experts))
    assert found["largest"] <= BOUND * found["scale"]


def test_padding_moves_and_evens_out(loaded: Loaded) -> None:
    prompts = [np.arange(1, length + 1) for length in (2, 3, 30, 5)]
    (batch,) = batches_of(prompts, Setting(4, 1), 0, is_sorted=False)
    before, after = both(loaded, batch, "batched_mm")
    old, new = counts_of(before, 8), counts_of(after, 8)
    assert (old["real"] == new["real"]).all()
    assert (old["padding"] != new["padding"]).any()
    assert (new["padding"].sum(axis=1) == batch.padding * 3).all()
    spread = [(one["real"] + one["padding"]).std(axis=1) for one in (old, new)]
    assert (spread[1] < spread[0]).all()
    # Padding's own outputs do change: it was moved for real.
    assert not torch.equal(before.hidden, after.hidden)


def test_a_batch_without_padding_is_untouched(loaded: Loaded) -> None:
    batch = Batch((0, 1), np.arange(1, 9).reshape(2, 4), np.ones((2, 4), dtype=np.int64))
    before, after = both(loaded, batch, "grouped_mm")
    assert torch.equal(before.hidden, after.hidden)
    assert torch.equal(before.experts, after.experts)


def test_no_hook_stays_behind(loaded: Loaded) -> None:
    batch = Batch((0,), np.array([[1, 2, 0]]), np.array([[1, 1, 0]]))
    both(loaded, batch, "eager")
    assert not any(module._forward_hooks for module in loaded.routers.modules)


def test_only_so_many_layers(tmp_path: Path) -> None:
    folder = config_file(tmp_path / "m")
    found = load(Wish(f"random:{folder}", layers=1, device="cpu"))
    assert len(found.routers.modules) == 1
    with pytest.raises(InputError, match="has 2 layers; --layers asks for 3"):
        load(Wish(f"random:{folder}", layers=3, device="cpu"))


def test_weights_on_disk_are_the_saved_ones(tmp_path: Path) -> None:
    import transformers

    folder = saved_model(tmp_path / "m")
    own = load(Wish(str(folder), device="cpu")).model
    other = transformers.AutoModelForCausalLM.from_pretrained(folder)
    assert all(
        torch.equal(one, two) for one, two in zip(own.parameters(), other.parameters(), strict=True)
    )


def test_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    model = f"random:{config_file(tmp_path / 'm')}"
    one, same, other = (load(Wish(model, device="cpu", seed=seed)).model for seed in (1, 1, 2))
    assert torch.equal(one.lm_head.weight, same.lm_head.weight)
    assert not torch.equal(one.lm_head.weight, other.lm_head.weight)


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("qwen3", {}, "is dense .model_type qwen3.: it has no experts"),
        ("qwen2_moe", {"num_experts": 4}, "model_type qwen2_moe, for whose routers there are no"),
        ("qwen3_moe", {"pad_token_id": None}, "names no padding token; give its id with"),
        ("qwen3_moe", {"pad_token_id": 97}, "padding token 97 is not in the vocabulary"),
        ("qwen3_moe", {"decoder_sparse_step": 5}, "has no layer with experts"),
        ("no_such_type", {}, "no model that transformers knows"),
    ],
)
def test_models_that_cannot_be_used(
    tmp_path: Path, kind: str, changes: dict[str, Any], message: str
) -> None:
    folder = config_file(tmp_path / "m", kind, **changes)
    with pytest.raises(InputError, match=message) as raised:
        load(Wish(f"random:{folder}", device="cpu"))
    assert "\n" not in str(raised.value)


def test_a_folder_without_tokenizer_or_weights(tmp_path: Path) -> None:
    folder = config_file(tmp_path / "bare")
    with pytest.raises(InputError, match="has no tokenizer"):
        load(Wish(str(folder), device="cpu"))
    folder = saved_model(tmp_path / "m")
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match="holds no weights that can be read"):
        load(Wish(str(folder), device="cpu"))


def test_a_padding_token_can_be_given(tmp_path: Path) -> None:
    folder = config_file(tmp_path / "m", pad_token_id=None)
    assert load(Wish(f"random:{folder}", device="cpu", pad_token=5)).pad_token == 5


def test_a_model_that_is_not_there() -> None:
    with pytest.raises(InputError, match=r"there is no model nope: neither .* qwen3-30b-a3b"):
        load(Wish("random:nope", device="cpu"))
    with pytest.raises(InputError, match="there is no device called abacus"):
        load(Wish("random:olmoe-1b-7b", device="abacus"))


def test_a_model_that_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nsysmoe.model.build._free_memory", lambda: 8_000_000_000)
    with pytest.raises(MissingDataError, match=r"61\.1 GB with 48 layers in bfloat16, and cpu has"):
        load(Wish("random:qwen3-30b-a3b", device="cpu", dtype="bfloat16"))


def test_experts_that_nobody_computes(loaded: Loaded) -> None:
    with pytest.raises(InputError, match="experts cannot be computed by nothing"):
        use_experts(loaded, "nothing")


def test_a_version_with_other_routers() -> None:
    check_version("5.17.0")
    with pytest.raises(MissingDataError, match=r"4\.57\.6 is installed: pip install"):
        check_version("4.57.6")
