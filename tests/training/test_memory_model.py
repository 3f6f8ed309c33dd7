"""The memory that is computed before a run is what torch allocates: weights, states, gradients and activations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from architectures import FOREST, build
from torch.autograd.graph import saved_tensors_hooks

from alignzoo.data.trees import Branch, Tree, Trees
from alignzoo.models.meta import saved_bytes
from alignzoo.recipe.load import load_recipe
from alignzoo.recipe.optimizers import SGD, AdamW, RMSprop
from alignzoo.scoring.forest import PACKED, lay_out
from alignzoo.scoring.scorer import Scorer
from alignzoo.training.memory_model import (
    MicroBatch,
    ModelSize,
    count_weights,
    largest_micro_batch,
    memory_of,
    static_parts,
)
from alignzoo.training.optimizers import make_optimizer

RATE = {"learning_rate": 1e-3}


def sequence(width):
    return Tree("a", np.zeros(1, np.int32), (Branch(np.arange(1, width, dtype=np.int32) % 90),))


@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt_neox"])
@pytest.mark.parametrize(
    ("dtype", "precision"), [("float32", "float32"), ("float32", "bfloat16"), ("bfloat16", "float32")]
)
def test_activations_are_those_that_a_real_forward_keeps(name, dtype, precision):
    """Autograd's own record of a real packed forward, without its head, is the oracle."""
    model = build(FOREST[name]()).to(getattr(torch, dtype))
    scorer = Scorer(model, PACKED, precision)
    own = {one.untyped_storage().data_ptr() for one in (*model.parameters(), *model.buffers())}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = (tensor, storage.nbytes())
        return tensor

    inputs = scorer._inputs(lay_out([sequence(160)], PACKED))
    with torch.autocast("cpu", torch.bfloat16, precision == "bfloat16"), saved_tensors_hooks(keep, lambda one: one):
        model.base_model(**inputs, use_cache=False)
    want = sum(size for _, size in kept.values())
    with torch.device("meta"):
        meta = type(model)(model.config).to(getattr(torch, dtype)).eval()
    found = saved_bytes(meta, 160, 160, precision == "bfloat16", "cpu")
    assert found == pytest.approx(want, rel=0.1)


@pytest.mark.parametrize("optimizer", [AdamW(**RATE), RMSprop(**RATE), RMSprop(**RATE, momentum=0.9), SGD(**RATE)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("masters", [True, False])
def test_static_parts_are_what_an_optimizer_allocates(optimizer, dtype, masters):
    model = build(FOREST["llama"]()).to(dtype)
    recipe = load_recipe("sft_hh", [f"train.master_weights={str(masters).lower()}"]).recipe
    recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"optimizer": optimizer})})
    parts = static_parts(recipe, [ModelSize(**count_weights(model))])
    made = make_optimizer(optimizer, model, masters)
    model(torch.zeros((1, 4), dtype=torch.long)).logits.float().mean().backward()
    held = getattr(made, "masters", None) or list(model.parameters())
    assert parts["weights"] == sum(one.nbytes for one in (*model.parameters(), *model.buffers()))
    assert parts["gradients"] == sum(one.grad.nbytes for one in held)
    made.step()
    inner = getattr(made, "inner", made)
    states = sum(one.nbytes for state in inner.state.values() for one in state.values() if one is not None and one.ndim)
    assert parts["optimizer"] == states
    assert parts["master weights"] == sum(one.nbytes for one in getattr(made, "masters", ()))


def test_the_largest_micro_batch_is_bounded_by_the_budget_and_by_a_batch():
    trees = Trees.build(
        Tree(str(n), np.zeros(10, np.int32), (Branch(np.zeros(n, np.int32)),)) for n in (10, 20, 30, 40)
    )
    train = load_recipe("sft_hh", ["train.batch_size=2"]).recipe.train
    whole = largest_micro_batch(trees, train, 0, 2)
    assert 60 <= whole.slots <= 90
    assert (whole.several, whole.width) == (False, 50)
    small = largest_micro_batch(trees, train.model_copy(update={"micro_batch_tokens": 55}), 0, 2)
    assert (small.slots, small.several) == (55, True)
    tiny = largest_micro_batch(trees, train.model_copy(update={"micro_batch_tokens": 5}), 0, 2)
    assert tiny.slots == 50, "the longest row has a micro-batch of its own"


def test_checkpointing_adapters_and_a_reference_beside_change_what_they_should():
    recipe = load_recipe("dpo_hh").recipe
    batch = MicroBatch(1000, 500, 100, True)
    size = ModelSize(
        weights=4_000_000, parameters=1_000_000, trained=1_000_000, narrow=0, hidden=64, vocabulary=1000, layers=4,
        trained_head=True, saved=8_000_000,
    )  # fmt: skip
    plain = memory_of(recipe, size, batch, "cpu")
    train = recipe.train.model_copy(update={"gradient_checkpointing": True})
    less = memory_of(recipe.model_copy(update={"train": train}), size, batch, "cpu")
    assert less.parts["activations"] == 4 * 1000 * 64 * 4 + 8_000_000 // 4 < plain.parts["activations"]
    assert plain.peak - less.peak == plain.parts["activations"] - less.parts["activations"]
    beside = memory_of(recipe, size, batch, "cpu", beside=size)
    assert beside.peak - plain.peak == 4_000_000
    assert plain.peak == sum(plain.parts.values())
    assert memory_of(recipe, size, batch, "cpu", process=7).peak == plain.peak + 7
