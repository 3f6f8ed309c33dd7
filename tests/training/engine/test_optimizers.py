"""Muon, the optimizers of bitsandbytes, weight decay on matrices alone, and a warm-up as a share of the steps."""

from __future__ import annotations

import importlib.util
from types import SimpleNamespace

import pytest
import torch
from steps import tiny_llama
from transformers import LlamaConfig, LlamaForCausalLM

from alignzoo.core.errors import UserError
from alignzoo.recipe.load import load_recipe
from alignzoo.recipe.optimizers import SGD, AdamW, AdamW8bit, Lion, Lion8bit, Muon
from alignzoo.recipe.schema import Schedule, TrainConfig
from alignzoo.training import checkpoint, optimizers
from alignzoo.training.learner import Learner
from alignzoo.training.optimizers import check_optimizer, check_parted, make_optimizer
from alignzoo.training.schedule import rate_factor

MUON = Muon(learning_rate=0.02, weight_decay=0.1, adamw_learning_rate=0.005)
NOT_HIDDEN = ("embed_tokens", "lm_head")


def set_gradients(model, step):
    """Give every parameter a random gradient by a backward."""
    dice = torch.Generator().manual_seed(step)
    noise = [torch.randn(one.shape, generator=dice).to(one.dtype) for one in model.parameters()]
    sum((one * by).sum() for one, by in zip(model.parameters(), noise, strict=True)).backward()


def take(model, optimizer, steps):
    for step in steps:
        set_gradients(model, step)
        optimizer.step()
        optimizer.zero_grad()


def tokenizer():
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, "a")), eos_token="a")


def test_muon_updates_the_hidden_matrices_and_adamw_the_rest():
    """The oracle is torch's two optimizers, on parameters chosen by name."""
    model, exact = tiny_llama(), tiny_llama()
    named = dict(exact.named_parameters())
    hidden = [name for name, one in named.items() if one.ndim == 2 and not any(part in name for part in NOT_HIDDEN)]
    rest = [name for name in named if name not in hidden]
    assert any("norm" in name for name in rest)
    oracles = [
        torch.optim.Muon([named[name] for name in hidden], lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW([named[name] for name in rest], lr=0.005, weight_decay=0.1, fused=True),
    ]
    take(model, make_optimizer(MUON, model), range(3))
    for step in range(3):
        set_gradients(exact, step)
        for one in oracles:
            one.step()
            one.zero_grad()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, named[name]), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "masters"])
@pytest.mark.parametrize("config", [MUON, AdamW(learning_rate=0.01, weight_decay=0.1)], ids=lambda one: one.name)
def test_a_resumed_run_has_the_same_bytes(tmp_path, config, dtype):
    model = tiny_llama().to(dtype)
    optimizer = make_optimizer(config, model, decay_on="matrices")
    take(model, optimizer, range(3))
    checkpoint.save(tmp_path, 3, model, tokenizer(), optimizer, keep=1)
    resumed = tiny_llama(seed=5).to(dtype)
    again = make_optimizer(config, resumed, decay_on="matrices")
    checkpoint.restore(checkpoint.latest(tmp_path)[0], resumed, again)
    for one, by in ((model, optimizer), (resumed, again)):
        take(one, by, range(3, 8))
    for one, other in zip(model.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)
    for one, other in zip(optimizer.param_groups, again.param_groups, strict=True):
        assert one["weight_decay"] == other["weight_decay"]


@pytest.mark.parametrize("config", [SGD(learning_rate=1.0, weight_decay=0.25), AdamW(learning_rate=1.0, weight_decay=0.25)],
                         ids=lambda one: one.name)  # fmt: skip
def test_biases_norms_and_embeddings_do_not_decay(config):
    """Without a gradient a step multiplies what decays by 1 - learning rate * weight decay, and leaves the rest."""
    for decay_on in ("all", "matrices"):
        model = tiny_llama()
        before = {name: one.detach().clone() for name, one in model.named_parameters()}
        optimizer = make_optimizer(config, model, decay_on=decay_on)
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        for name, parameter in model.named_parameters():
            kept = decay_on == "matrices" and ("norm" in name or "embed" in name or name.endswith("bias"))
            torch.testing.assert_close(parameter.detach(), before[name] * (1.0 if kept else 0.75), msg=name)


def test_the_schedule_scales_both_learning_rates_of_muon():
    model = tiny_llama()
    optimizer = make_optimizer(MUON, model)
    rate = Learner(SimpleNamespace(model=model), optimizer, MUON.learning_rate).set_rate(0.5)
    assert rate == 0.01
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.01, 0.0025])


def test_a_model_without_hidden_matrices_has_no_muon():
    with pytest.raises(UserError, match=r"train\.optimizer\.name.*no matrix of a hidden layer"):
        make_optimizer(MUON, torch.nn.Embedding(3, 2))


@pytest.mark.parametrize("kind", [AdamW8bit, Lion, Lion8bit])
def test_without_bitsandbytes_the_error_names_it(monkeypatch, kind):
    monkeypatch.setattr(optimizers, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"(?s)requires bitsandbytes.*pip install 'alignzoo\[bitsandbytes\]'"):
        check_optimizer(kind(learning_rate=1e-4))
    check_optimizer(AdamW(learning_rate=1e-4))
    check_optimizer(MUON)


def test_an_older_torch_has_no_muon(monkeypatch):
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(UserError, match=r"muon requires torch 2\.9"):
        check_optimizer(MUON)


def test_what_needs_whole_matrices_is_not_divided():
    def train(optimizer, **more):
        return TrainConfig(optimizer={"learning_rate": 1e-4} | optimizer, **more)

    sharded, zero = SimpleNamespace(parted=True, zero=0), SimpleNamespace(parted=True, zero=1)
    for name in ("muon", "adamw_8bit", "lion", "lion_8bit"):
        with pytest.raises(UserError, match=f"{name} needs whole matrices"):
            check_parted(train({"name": name}), sharded)
    with pytest.raises(UserError, match=r"train\.weight_decay_on"):
        check_parted(train({"name": "adamw"}, weight_decay_on="matrices"), zero)
    check_parted(train({"name": "adamw"}, weight_decay_on="matrices"), sharded)
    check_parted(train({"name": "muon"}, weight_decay_on="matrices"), SimpleNamespace(parted=False, zero=0))


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
@pytest.mark.parametrize("kind", [AdamW8bit, Lion, Lion8bit])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "masters"])
def test_a_resumed_run_of_bitsandbytes_has_the_same_bytes(tmp_path, kind, dtype):
    """A matrix of at least 4096 numbers has states of 8 bits."""
    shape = LlamaConfig(
        vocab_size=64, hidden_size=64, intermediate_size=128, num_hidden_layers=1, num_attention_heads=4
    )
    model, resumed = (LlamaForCausalLM(shape).to(dtype) for _ in range(2))
    optimizer = make_optimizer(kind(learning_rate=0.01), model)
    take(model, optimizer, range(3))
    checkpoint.save(tmp_path, 3, model, tokenizer(), optimizer, keep=1)
    again = make_optimizer(kind(learning_rate=0.01), resumed)
    checkpoint.restore(checkpoint.latest(tmp_path)[0], resumed, again)
    for one, by in ((model, optimizer), (resumed, again)):
        take(one, by, range(3, 8))
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), resumed.parameters(), strict=True))


def test_a_warmup_ratio_is_a_share_of_all_steps_rounded_up():
    assert [Schedule(warmup_ratio=0.1).warmup(total) for total in (10, 11, 30, 1000)] == [1, 2, 3, 100]
    assert Schedule(warmup_ratio=0.07).warmup(100) == 7  # the float product is just above
    assert Schedule(warmup_steps=5).warmup(1000) == 5
    for name in ("constant", "linear", "cosine"):
        ratio, steps = Schedule(name=name, warmup_ratio=0.25), Schedule(name=name, warmup_steps=5)
        assert [rate_factor(ratio, step, 20) for step in range(20)] == [rate_factor(steps, s, 20) for s in range(20)]


def test_defaults_are_no_part_of_a_recipes_identity_and_two_warmups_are_an_error():
    def fingerprint(*overrides):
        return load_recipe("recipes/dpo_hh.yaml", [f"train.{one}" for one in overrides]).fingerprint

    own = fingerprint()
    assert fingerprint("weight_decay_on=all", "schedule.warmup_ratio=0") == own
    assert fingerprint("weight_decay_on=matrices") != own
    none = fingerprint("schedule.warmup_steps=0")
    assert fingerprint("schedule.warmup_steps=0", "schedule.warmup_ratio=0.1") != none
    with pytest.raises(UserError, match="warmup_steps and warmup_ratio both set the warm-up"):
        fingerprint("schedule.warmup_steps=4", "schedule.warmup_ratio=0.1")
