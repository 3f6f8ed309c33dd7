"""Adapters are peft's, change nothing at first, train alone, and switched off leave the very base."""

from __future__ import annotations

import json
import warnings

import pytest
import torch
from architectures import FOREST, VOCABULARY, build
from peft import PeftModel
from pydantic import ValidationError

from alignzoo.core.errors import UserError
from alignzoo.interfaces.model_source import Lora
from alignzoo.models.adapters import (
    add_adapters,
    disabled_adapters,
    has_adapters,
    read_adapter,
    tensors_of,
    write_adapter,
)
from alignzoo.models.fingerprint import weights_fingerprint
from alignzoo.models.loading import use_gradient_checkpointing
from alignzoo.recipe.optimizers import SGD, AdamW, RMSprop
from alignzoo.training import checkpoint
from alignzoo.training.optimizers import make_optimizer

NAMES = ["llama", "gpt2", "gpt_neox", "mixtral"]  # gpt2 has Conv1D in place of Linear, mixtral fused experts
IDS = torch.randint(0, VOCABULARY, (2, 12), generator=torch.Generator().manual_seed(3))


def adapted(name, seed=0, **fields):
    model = build(FOREST[name]())
    add_adapters(model, Lora(r=4, **fields), seed, "base")
    return model


def step(model, optimizer):
    model(IDS, labels=IDS).loss.backward()
    optimizer.step()
    optimizer.zero_grad()


@pytest.mark.parametrize("name", NAMES)
def test_training_moves_adapters_alone_and_off_is_the_base_to_the_bit(name):
    base = build(FOREST[name]())
    want = base(IDS).logits
    model = adapted(name)
    torch.testing.assert_close(model(IDS).logits, want, rtol=0, atol=1e-6)
    optimizer = make_optimizer(AdamW(learning_rate=0.01), model)
    step(model, optimizer)
    assert (model(IDS).logits - want).abs().max() > 1e-3
    with disabled_adapters(model):
        assert torch.equal(model(IDS).logits, want)
    assert (model(IDS).logits - want).abs().max() > 1e-3
    now = {key.replace(".base_layer", ""): value for key, value in model.state_dict().items()}
    assert all(torch.equal(value, now[key]) for key, value in base.state_dict().items())
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert not any(module.training for module in model.modules())


def test_the_start_is_a_function_of_the_seed_and_of_nothing_else():
    torch.manual_seed(1)
    one = adapted("llama")
    torch.manual_seed(2)
    state = torch.get_rng_state()
    again, other = adapted("llama"), adapted("llama", seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert weights_fingerprint(one) == weights_fingerprint(again) != weights_fingerprint(other)


def test_the_fingerprint_knows_of_the_scaling():
    assert weights_fingerprint(adapted("llama")) != weights_fingerprint(adapted("llama", alpha=8))


@pytest.mark.parametrize("name", NAMES)
def test_peft_reads_what_is_written_and_so_do_we(tmp_path, name):
    model = adapted(name)
    step(model, make_optimizer(SGD(learning_rate=1), model))
    write_adapter(model, tmp_path)
    want = model(IDS).logits
    ours = build(FOREST[name]())
    read_adapter(ours, tmp_path)
    assert torch.equal(ours(IDS).logits, want)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft speaks of patterns that it has made itself
        theirs = PeftModel.from_pretrained(build(FOREST[name]()), str(tmp_path)).eval()
    assert torch.equal(theirs(IDS).logits, want)
    torch.testing.assert_close(theirs.merge_and_unload()(IDS).logits, want, rtol=0, atol=1e-5)
    values = json.loads((tmp_path / "adapter_config.json").read_text())
    assert values["target_modules"] == sorted(values["target_modules"])
    assert values["base_model_name_or_path"] == "base"


def test_a_bfloat16_base_has_adapters_in_float32():
    model = build(FOREST["llama"]()).bfloat16()
    add_adapters(model, Lora(r=4), 0)
    assert model.dtype == torch.bfloat16
    assert {x.dtype for x in tensors_of(model).values()} == {torch.float32}


@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt_neox"])
def test_gradient_checkpointing_gives_the_same_gradients(name):
    plain, saving = adapted(name), adapted(name)
    use_gradient_checkpointing(saving)
    found = []
    for model in (plain, saving):
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data.add_(0.01)
        model(IDS, labels=IDS, use_cache=False).loss.backward()
        found.append([parameter.grad for parameter in model.parameters() if parameter.requires_grad])
    assert any(getattr(module, "gradient_checkpointing", False) for module in saving.modules())
    assert all(torch.equal(a, b) and a.abs().max() > 0 for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("config", [AdamW(learning_rate=0.01), RMSprop(learning_rate=0.01)], ids=lambda c: c.name)
def test_a_checkpoint_is_the_adapter_and_its_optimizer_and_training_goes_on_bit_by_bit(tmp_path, tokenizer, config):
    model = adapted("llama")
    optimizer = make_optimizer(config, model)
    step(model, optimizer)
    path = checkpoint.save(tmp_path, 1, model, tokenizer, optimizer, keep=1)
    assert not (path / "model.safetensors").exists()
    whole = sum(x.nbytes for x in build(FOREST["llama"]()).state_dict().values())
    assert (path / "adapter_model.safetensors").stat().st_size < whole / 2
    step(model, optimizer)
    resumed = adapted("llama", seed=5)
    other = make_optimizer(config, resumed)
    checkpoint.restore(checkpoint.latest(tmp_path)[0], resumed, other)
    step(resumed, other)
    assert weights_fingerprint(resumed) == weights_fingerprint(model)


def test_a_checkpoint_of_another_rank_is_rejected(tmp_path):
    write_adapter(adapted("llama"), tmp_path)
    model = build(FOREST["llama"]())
    add_adapters(model, Lora(r=8), 0)
    with pytest.raises(UserError, match="the adapter does not fit this model"):
        read_adapter(model, tmp_path)


def test_targets_can_be_named():
    model = adapted("llama", target_modules=["q_proj", "model.layers.1.mlp.up_proj"])
    names = {name.partition(".lora_")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert names == {f"model.layers.{i}.self_attn.q_proj" for i in (0, 1)} | {"model.layers.1.mlp.up_proj"}


@pytest.mark.parametrize(("asked", "message"), [
    (["q_proj", "v_prj"], r"target_modules: LlamaForCausalLM has no linear layer 'v_prj'; did you mean 'v_proj'\?"),
    (["norm"], "has no linear layer 'norm'; expected all-linear, or names from q_proj, k_proj, v_proj, o_proj, gate_proj"),
])  # fmt: skip
def test_a_target_that_the_model_lacks_is_reported(asked, message):
    model = build(FOREST["llama"]())
    with pytest.raises(UserError, match=message):
        add_adapters(model, Lora(target_modules=asked), 0)
    assert not has_adapters(model)


def test_a_tied_head_is_no_target():
    with pytest.raises(UserError, match="'lm_head' of this model shares its weights with the embeddings"):
        adapted("gpt2", target_modules=["lm_head"])


@pytest.mark.parametrize(("fields", "message"), [
    ({"dropout": 0.05}, "0.05 is not 0: with dropout"),
    ({"target_modules": []}, "expected all-linear, or a list of names"),
    ({"target_modules": ["all-linear", "q_proj"]}, "expected all-linear, or a list of names"),
])  # fmt: skip
def test_fields_that_make_no_sense(fields, message):
    with pytest.raises(ValidationError, match=message):
        Lora(**fields)
