"""bfloat16 weights are stepped through float32 masters: small updates add up, and a resumed run has the same bytes."""

from __future__ import annotations

import copy

import pytest
import torch
from steps import SFT, build, take, tiny_llama

from alignzoo.objectives.builtin.dpo import DPO
from alignzoo.recipe.optimizers import SGD, AdamW, RMSprop
from alignzoo.training import checkpoint
from alignzoo.training.master_weights import holders_of_gradients, memory_words
from alignzoo.training.optimizers import make_optimizer


class Average(DPO):
    """DPO against an exponential moving average of the policy."""

    name = "average"
    reference = "moving"

    def reference_update(self, step):
        return 0.002


OPTIMIZERS = [AdamW(learning_rate=1e-6), RMSprop(learning_rate=1e-6), SGD(learning_rate=1e-3, momentum=0.9)]


def gradients(model, step):
    """Give every parameter a random gradient by a backward, and return the gradients in the model's type."""
    dice = torch.Generator().manual_seed(step)
    found = [torch.randn(one.shape, generator=dice).to(one.dtype) for one in model.parameters()]
    sum((one * noise).sum() for one, noise in zip(model.parameters(), found, strict=True)).backward()
    return found


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
        for parameter, own in zip(exact.parameters(), gradients(model, step), strict=True):
            parameter.grad = own.double()
        optimizer.step()
        optimizer.zero_grad()
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
            sum(one.sum() for one in model.parameters()).backward()
            optimizer.step()
            optimizer.zero_grad()
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
        optimizer.zero_grad()
    checkpoint.save(tmp_path, 3, model, tokenizer, optimizer, keep=1)
    resumed = tiny_llama(seed=5).to(torch.bfloat16)
    again = make_optimizer(config, resumed)
    checkpoint.restore(checkpoint.latest(tmp_path)[0], resumed, again)
    for step in range(3, 40):
        for one, by in ((model, optimizer), (resumed, again)):
            gradients(one, step)
            by.step()
            by.zero_grad()
    for one, other in zip(
        (*model.parameters(), *optimizer.masters), (*resumed.parameters(), *again.masters), strict=True
    ):
        assert torch.equal(one, other)


def test_steps_of_an_engine_go_through_them(tmp_path):
    engine = build(SFT(), tmp_path, dtype=torch.bfloat16, optimizer={"name": "adamw", "learning_rate": 1e-6})
    before = [one.clone() for one in engine.optimizer.masters]
    take(engine)
    assert all((a != b).any() for a, b in zip(before, engine.optimizer.masters, strict=True))


def test_gradients_of_micro_batches_are_summed_in_float32():
    """The oracle is the sum of the micro-batches' own gradients in float64."""
    model = tiny_llama().to(torch.bfloat16)
    optimizer = make_optimizer(AdamW(learning_rate=1e-6), model)
    parts = [gradients(model, step) for step in range(64)]
    for master, parameter, own in zip(optimizer.masters, model.parameters(), zip(*parts, strict=True), strict=True):
        want = torch.stack(own).double().sum(0)
        assert parameter.grad is None
        torch.testing.assert_close(master.grad.double(), want, rtol=1e-5, atol=1e-5)


def test_the_norm_and_the_clipped_step_are_those_of_the_sum(tmp_path):
    """Of one engine with many micro-batches, against the same gradient in float32 and clipped by hand."""
    engine = build(SFT(), tmp_path, dtype=torch.bfloat16, micro_batch_tokens=64, max_grad_norm=0.01)
    before = [one.clone() for one in engine.optimizer.masters]
    found = take(engine)
    (metrics,), (gradient,) = found.metrics, found.gradients
    moved = [(a - b).detach() for a, b in zip(before, engine.optimizer.masters, strict=True)]
    norm = torch.stack([one.double().norm() for one in moved]).norm()
    assert metrics["grad_norm"] > 0.01
    assert norm == pytest.approx(0.01 * 0.1, rel=1e-4)  # the limit times the learning rate
    assert all(one.dtype == torch.float32 for one in gradient.values())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_a_moving_reference_is_the_average_in_float64(tmp_path, dtype):
    """In bfloat16 a move of 0.2% would be rounded away; here most weights follow."""
    engine = build(Average(), tmp_path, dtype=dtype, optimizer={"name": "sgd", "learning_rate": 0.5})
    start = [one.detach().clone() for one in engine.builder.live.model.parameters()]
    want = [one.double() for one in start]
    for step in range(8):
        engine.step(step)
        for average, policy in zip(want, holders_of_gradients(engine.optimizer), strict=True):
            average.lerp_(policy.detach().double(), 0.002)
    own = list(engine.builder.live.model.parameters())
    for exact, average, one in zip(engine.moving.tensors.values(), want, own, strict=True):
        torch.testing.assert_close(exact.double(), average, rtol=1e-5, atol=1e-6)
        assert torch.equal(one, exact.to(dtype))
    moved = sum(int((a != b).sum()) for a, b in zip(start, own, strict=True)) / sum(one.numel() for one in own)
    assert moved > 0.5
    assert ("moves in float32" in engine.moving.memory_words()) == (dtype == torch.bfloat16)


class Corrected(Average):
    """DPO against an average that is corrected for its lag, as BEMA's."""

    name = "corrected"

    def reference_update(self, step):
        return (10 + step) ** -0.5 if step % 3 == 0 else 0.0

    def reference_correction(self, step):
        return (10 + step) ** -0.2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_a_corrected_reference_is_the_average_plus_a_share_of_the_way(tmp_path, dtype):
    """Block and Zhang 2025, in float64; and what a checkpoint holds is enough to go on with."""
    engine = build(Corrected(), tmp_path, dtype=dtype, optimizer={"name": "sgd", "learning_rate": 0.5})
    start = [one.detach().double().clone() for one in engine.builder.live.model.parameters()]
    average = want = start
    for step in range(1, 8):
        if step == 5:
            kept = {name: one.clone() for name, one in engine.moving.tensors.items()}
            for one in engine.moving.tensors.values():
                one.zero_()
            for name, one in engine.moving.tensors.items():
                one.copy_(kept[name])
        engine.step(step - 1)
        policy = [one.detach().double() for one in holders_of_gradients(engine.optimizer)]
        if step % 3 == 0:
            share, more = (10 + step) ** -0.5, (10 + step) ** -0.2
            average = [(1 - share) * one + share * now for one, now in zip(average, policy, strict=True)]
            want = [one + more * (now - first) for one, now, first in zip(average, policy, start, strict=True)]
    own = list(engine.builder.live.model.named_parameters())
    for (name, one), exact in zip(own, want, strict=True):
        torch.testing.assert_close(engine.moving.tensors[name].double(), exact, rtol=1e-5, atol=1e-6)
        assert torch.equal(one, engine.moving.tensors[name].to(dtype))
    assert "its average and its start" in engine.moving.memory_words()
