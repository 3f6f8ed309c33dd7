"""QLoRA: frozen weights in 4 or 8 bits under trained adapters. bitsandbytes is no part of the tested set: skipped without."""

from __future__ import annotations

import json

import pytest
import torch
from architectures import FOREST, build
from peft import PeftModel
from transformers import AutoModelForCausalLM

import alignzoo
from alignzoo.core.console import Screen
from alignzoo.core.errors import UserError
from alignzoo.interfaces.model_source import Lora
from alignzoo.models.adapters import add_adapters, disabled_adapters
from alignzoo.models.fingerprint import weights_fingerprint
from alignzoo.models.loading import load_trained, pretrained
from alignzoo.models.tokenizers import pretrained_tokenizer
from alignzoo.models.value_models import value_model
from alignzoo.recipe.load import load_recipe
from alignzoo.training.export import export_run

IDS = torch.arange(40)[None]


@pytest.mark.slow
def test_without_the_library_the_error_has_the_command(run, monkeypatch):
    monkeypatch.setattr("alignzoo.models.adapters.find_spec", lambda name: None if name == "bitsandbytes" else name)
    with pytest.raises(UserError, match=r"require bitsandbytes, which is not installed\n.*'alignzoo\[qlora\]'"):
        run("model.quantize=4bit")


@pytest.fixture
def bitsandbytes():
    pytest.importorskip("bitsandbytes", reason="pip install 'alignzoo[qlora]'")


@pytest.fixture
def saved(tmp_path, bitsandbytes):
    def save(name):
        config = FOREST[name]()
        config.hidden_size, config.head_dim, config.intermediate_size = 64, 16, 128
        build(config).save_pretrained(tmp_path / name)
        return str(tmp_path / name)

    return save


@pytest.mark.parametrize("bits", ["4bit", "8bit"])
@pytest.mark.parametrize("name", ["llama", "gpt_neox"])
def test_the_base_stays_as_it_is(saved, name, bits):
    folder = saved(name)
    model = pretrained(folder, None, 0, "language_model", "float32", quantize=bits).eval()
    again = pretrained(folder, None, 0, "language_model", "float32", quantize=bits)
    assert weights_fingerprint(model) == weights_fingerprint(again)
    assert weights_fingerprint(model) != weights_fingerprint(pretrained(folder, None, 0, "language_model", "float32"))
    with torch.no_grad():
        want = model(IDS).logits
    add_adapters(model, Lora(r=4), 0)
    model(IDS, labels=IDS, use_cache=False).loss.backward()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert all(parameter.grad is not None and parameter.dtype == torch.float32 for parameter in trained)
    with torch.no_grad():
        for parameter in trained:
            parameter.sub_(0.5 * parameter.grad)
        assert (model(IDS).logits - want).abs().max() > 0.1
        with disabled_adapters(model):
            assert torch.equal(model(IDS).logits, want)


@pytest.mark.parametrize("bits", ["4bit", "8bit"])
def test_a_critic_shares_the_quantized_layers(saved, tokenizer, bits):
    policy = pretrained(saved("llama"), None, 0, "language_model", "float32", quantize=bits).eval()
    add_adapters(policy, Lora(r=4, target_modules=("q_proj",)), 0)
    critic = value_model(policy, tokenizer, 0, False)
    add_adapters(critic, Lora(r=4), "critic 0")
    frozen = {id(parameter) for parameter in policy.parameters() if not parameter.requires_grad}
    own = [p for p in critic.parameters() if not p.requires_grad and id(p) not in frozen]
    assert [parameter.shape for parameter in own] == [(1, 64)]  # the head before training
    layers = {id(module) for module in policy.modules() if type(module).__module__.startswith("bitsandbytes")}
    assert layers == {id(m) for m in critic.modules() if type(m).__module__.startswith("bitsandbytes")}
    with torch.no_grad():
        want = policy(IDS).logits
    before = critic.score(critic.base_model(IDS)[0])
    before.square().sum().backward()
    with torch.no_grad():
        for parameter in critic.parameters():
            if parameter.requires_grad:
                parameter.sub_(parameter.grad)
        assert (critic.score(critic.base_model(IDS)[0]) - before).abs().max() > 0.1
        assert torch.equal(policy(IDS).logits, want)


def test_gpt2_is_rejected(tmp_path, bitsandbytes):
    build(FOREST["gpt2"]()).save_pretrained(tmp_path / "gpt2")
    with pytest.raises(UserError, match=r"model.quantize: the layers of GPT2LMHeadModel \(Conv1D\) lose their layout"):
        pretrained(str(tmp_path / "gpt2"), None, 0, "language_model", "float32", quantize="4bit")


@pytest.mark.slow
@pytest.mark.parametrize(("bits", "near"), [("4bit", 1e-5), ("8bit", 0.05)])
def test_a_whole_run_and_what_is_exported_of_it(run, tmp_path, bitsandbytes, bits, near):
    """In 8 bits the activations are rounded too, and whole weights can't do that."""
    result = run(f"model.quantize={bits}")
    assert result.summary["reference"]["rows_scored"] == 160  # another base than the whole weights
    second = run(f"model.quantize={bits}", "objective.beta=0.5")
    assert second.summary["reference"]["rows_cached"] == 160
    overrides = ["model.lora={r: 4, alpha: 8}", f"model.quantize={bits}"]
    recipe = load_recipe("recipes/dpo_hh.yaml", overrides, ["tests/smallest.yaml"]).recipe
    named = json.loads((result.policy / "adapter_config.json").read_text())["base_model_name_or_path"]
    tokenizer = pretrained_tokenizer(str(result.policy))
    trained = load_trained(
        recipe.model, tokenizer, 0, tmp_path / "runs" / named.split("/")[-2] / "policy", result.policy
    )
    assert weights_fingerprint(trained) == result.summary["model"]["trained_weights"]
    to = export_run(result.folder, tmp_path / "out", True, None, "5GB", False, Screen(quiet=True))
    merged = AutoModelForCausalLM.from_pretrained(to)
    assert {parameter.dtype for parameter in merged.parameters()} == {torch.float32}
    with torch.no_grad():
        got, want = (model(IDS).logits.log_softmax(-1) for model in (merged, trained))
    torch.testing.assert_close(got, want, rtol=0, atol=near)
    assert isinstance(alignzoo.load_recipe(result.folder / "recipe.yaml").recipe.model.lora, Lora)
    PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(named), str(result.policy))
