"""bfloat16 weights are stepped through float32 masters: small updates add up, and a resumed run has the same bytes."""

from __future__ import annotations

import copy

import pytest
import torch
from steps import SFT, build, take, tiny_llama

from alignzoo.recipe.schema import SGD, AdamW, RMSprop
from alignzoo.training import checkpoint
from alignzoo.training.master_weights import memory_words
from alignzoo.training.schedule import make_optimizer

OPTIMIZERS = [AdamW(learning_rate=1e-6), RMSprop(learning_rate=1e-6), SGD(learning_rate=1e-3, momentum=0.9)]


def gradients(model, step):
    dice = torch.Generator().manual_seed(step)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=dice).to(parameter.dtype)


@pytest.mark.parametrize("config", OPTIMIZERS, ids=lambda one: one.name)
def test_the_weights_are_those_of_float64_rounded(config):
    """Torch's own optimizer on float64 weights and the same gradients is the oracle."""
    model = tiny_llama().to(torch.bfloat16)
    exact = copy.deepcopy(model).double()
    optimizer = make_optimizer(config, model)
    options = config.model_dump(exclude={"name", "learning_rate"}) | {"lr": config.learning_rate}
    kind = {"adamw": torch.optim.AdamW, "rmsprop": torch.optim.RMSprop, "sgd": torch.optim.SGD}[config.name]
    oracle = kind(exact.parameters(), **options)
    for step in range(12):
        gradients(model, step)
        for parameter, own in zip(exact.parameters(), model.parameters(), strict=True):
            parameter.grad = own.grad.double()
        optimizer.step()
        oracle.step()
    for master, parameter, want in zip(optimizer.masters, model.parameters(), exact.parameters(), strict=True):
        torch.testing.assert_close(master.double(), want, rtol=1e-6, atol=1e-7)
        assert torch.equal(parameter, master.to(torch.bfloat16))


def test_small_updates_move_weights_in_the_end():
    """At 1e-6 nearly no bfloat16 weight would move in a hundred steps of one direction; 1e-4 in all moves most."""
    moved = {}
    for masters in (True, False):
        model = tiny_llama().to(torch.bfloat16)
        before = [one.detach().clone() for one in model.parameters()]
        optimizer = make_optimizer(AdamW(learning_rate=1e-6), model, masters)
        for _ in range(100):
            for parameter in model.parameters():
                parameter.grad = torch.ones_like(parameter)
            optimizer.step()
        pairs = zip(before, model.parameters(), strict=True)
        moved[masters] = sum(int((a != b).sum()) for a, b in pairs) / sum(one.numel() for one in before)
    assert moved[True] > 0.5 > 5 * moved[False]
    assert "float32 masters" in memory_words(list(model.parameters()), True)
    assert "rounded away" in memory_words(list(model.parameters()), False)
    assert memory_words(list(model.float().parameters()), True) == ""


@pytest.mark.parametrize("config", OPTIMIZERS, ids=lambda one: one.name)
def test_a_resumed_run_has_the_same_bytes(tmp_path, config):
    from transformers import PreTrainedTokenizerFast
    from tokenizers import Tokenizer, models  # isort: skip

    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, "a")), eos_token="a")
    model = tiny_llama().to(torch.bfloat16)
    optimizer = make_optimizer(config, model)
    for step in range(3):
        gradients(model, step)
        optimizer.step()
    checkpoint.save(tmp_path, 3, model, tokenizer, optimizer, keep=1)
    resumed = tiny_llama(seed=5).to(torch.bfloat16)
    again = make_optimizer(config, resumed)
    checkpoint.restore(checkpoint.latest(tmp_path)[0], resumed, again)
    for step in range(3, 40):
        for one, by in ((model, optimizer), (resumed, again)):
            gradients(one, step)
            by.step()
    for one, other in zip(
        (*model.parameters(), *optimizer.masters), (*resumed.parameters(), *again.masters), strict=True
    ):
        assert torch.equal(one, other)


def test_steps_of_an_engine_go_through_them(tmp_path):
    engine = build(SFT(), tmp_path, dtype=torch.bfloat16, optimizer={"name": "adamw", "learning_rate": 1e-6})
    before = [one.clone() for one in engine.optimizer.masters]
    take(engine)
    assert all((a != b).any() for a, b in zip(before, engine.optimizer.masters, strict=True))
