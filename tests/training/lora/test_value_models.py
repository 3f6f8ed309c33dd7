"""A critic's adapter and head on the policy's weights: one base, values of a merged model, and no effect on the policy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from architectures import FOREST, PLAIN, build
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

from alignzoo.core.errors import UserError
from alignzoo.data.trees import Branch, Tree
from alignzoo.interfaces.model_source import Lora
from alignzoo.models.adapters import add_adapters, disabled_adapters, tensors_of, write_adapter
from alignzoo.models.loading import load_policy, use_gradient_checkpointing
from alignzoo.models.sources.transformers import Transformers
from alignzoo.models.value_models import token_classifier, value_model
from alignzoo.scoring.forest import lay_out
from alignzoo.scoring.scorer import VALUE, Scorer

TREES = [
    Tree("a", np.array([1, 5, 7], np.int32), (Branch.of([3, 4, 2], (0, 3)), Branch.of([9, 8, 6, 2], (0, 4)))),
    Tree("b", np.array([1, 6], np.int32), (Branch.of([2, 3], (0, 2)), Branch.of([4, 4, 4, 4, 2], (0, 5)))),
]
SHARED = ["llama", "gpt2", "gpt_neox", "mixtral", "mistral (window)", "gemma3 (window)"]


def both(name, tokenizer, **lora):
    """A policy with an adapter, and a critic on its base with an adapter that has moved."""
    policy = build((FOREST | PLAIN)[name]())
    policy = policy if name == "mixtral" else policy.double()  # experts have no float64
    add_adapters(policy, Lora(r=4), 0, "base")
    critic = value_model(policy, tokenizer, 0, False)
    add_adapters(critic, Lora(**{"r": 3, **lora}), "critic 0", "base")
    return policy, critic


def train(model, forest, name, rate=0.1):
    """A step of the adapter of either model, whose B were 0."""
    output = Scorer(model)(forest, (VALUE,) if name == VALUE else ())[name]
    output.square().sum().backward()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.sub_(rate * parameter.grad / (parameter.grad.norm() + 1e-6))
                parameter.grad = None


def scores(policy, critic, forest):
    with torch.no_grad():
        alone = Scorer(policy)
        alone.base_alone = True
        return Scorer(policy)(forest)["log_prob"], Scorer(critic)(forest, (VALUE,))[VALUE], alone(forest)["log_prob"]


def storages(*models):
    tensors = [tensor for model in models for tensor in (*model.parameters(), *model.buffers())]
    return {tensor.untyped_storage().data_ptr() for tensor in tensors if tensor.numel()}


@pytest.mark.parametrize("name", SHARED)
def test_each_is_trained_alone_and_the_base_is_one(name, tokenizer):
    policy, critic = both(name, tokenizer)
    forest = lay_out(TREES, "padded")
    base = {id(parameter) for parameter in policy.base_model.parameters() if not parameter.requires_grad}
    own = [parameter for parameter in critic.parameters() if id(parameter) not in base]
    assert base <= {id(parameter) for parameter in critic.parameters()}
    adapter = sum(tensor.numel() for tensor in tensors_of(critic).values())
    frozen = [parameter for parameter in own if not parameter.requires_grad]
    assert sum(parameter.numel() for parameter in own if parameter.requires_grad) == adapter
    assert [parameter.numel() for parameter in frozen] == [critic.config.get_text_config().hidden_size]  # the old head
    assert len(storages(policy, critic)) == len(storages(policy)) + len(storages(critic) - storages(policy))
    assert len(storages(critic) - storages(policy)) == len(own)
    log_prob, value, reference = scores(policy, critic, forest)
    close = {"rtol": 0, "atol": 1e-5 if name == "mixtral" else 1e-12}
    torch.testing.assert_close(log_prob, reference, **close)
    train(critic, forest, VALUE)
    after = scores(policy, critic, forest)
    assert torch.equal(after[0], log_prob)
    assert torch.equal(after[2], reference)
    assert (after[1] - value).abs().max() > 1e-3
    train(policy, forest, "log_prob")
    last = scores(policy, critic, forest)
    assert (last[0] - log_prob).abs().max() > 1e-3
    assert torch.equal(last[1], after[1])
    assert torch.equal(last[2], reference)
    with disabled_adapters(policy):
        assert torch.equal(scores(policy, critic, forest)[1], after[1])


@pytest.mark.parametrize("name", ["llama", "gpt2", "mixtral"])
def test_values_are_those_of_the_merged_model_that_peft_makes(name, tokenizer, tmp_path):
    """In float64, by transformers' own forward on each prefix, from the files that a run leaves."""
    policy, critic = both(name, tokenizer)
    forest = lay_out(TREES, "padded")
    train(critic, forest, VALUE)
    value = scores(policy, critic, forest)[1]
    write_adapter(critic, tmp_path)
    base = build(FOREST[name]())
    base.save_pretrained(tmp_path / "base")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base", num_labels=1).to(policy.dtype)
    merged = PeftModel.from_pretrained(model, str(tmp_path)).merge_and_unload()
    merged.config.pad_token_id = None
    want = [
        merged(torch.from_numpy(np.concatenate([tree.prompt, branch.tokens[:end]])).long()[None]).logits.item()
        for tree in TREES for branch in tree.branches for end in range(len(branch.tokens))
    ]  # fmt: skip
    assert value.tolist() == pytest.approx(want, abs=1e-5 if name == "mixtral" else 1e-7)  # adapters are float32


def test_the_new_head_is_the_one_that_a_whole_critic_gets(tokenizer, tmp_path):
    policy = build(FOREST["llama"]())
    policy.save_pretrained(tmp_path)
    whole = load_policy(Transformers(path=str(tmp_path)), tokenizer, 5, None, "scalar")
    add_adapters(policy, Lora(r=4), 0, "base")
    critic = value_model(policy, tokenizer, 5, False)
    assert torch.equal(critic.score.weight, whole.score.weight)
    forest = lay_out(TREES, "padded")
    want = Scorer(whole)(forest, (VALUE,))[VALUE]
    assert torch.equal(Scorer(critic)(forest, (VALUE,))[VALUE], want)
    add_adapters(critic, Lora(r=4), "critic 5", "base")
    torch.testing.assert_close(Scorer(critic)(forest, (VALUE,))[VALUE], want, rtol=0, atol=1e-6)


def test_the_two_adapters_start_apart_and_may_differ_in_rank_and_layers(tokenizer):
    policy, critic = both("llama", tokenizer, r=4)
    own = tensors_of(critic)
    shared = {name: tensor for name, tensor in tensors_of(policy).items() if name in own}
    assert any("lora_A" in name for name in shared)
    assert all(bool(tensor.any()) == ("lora_A" in name) for name, tensor in own.items() if "lora" in name)
    assert not any(torch.equal(tensor, own[name]) for name, tensor in shared.items() if "lora_A" in name)
    _, other = both("llama", tokenizer, r=2, target_modules=("q_proj",))
    names = [name for name in tensors_of(other) if "lora_A" in name]
    assert len(names) == 2
    assert {tensors_of(other)[name].shape[0] for name in names} == {2}


@pytest.mark.parametrize("layout", ["packed", "plain"])
def test_layouts_and_recomputed_activations_change_no_gradient(layout, tokenizer):
    found = []
    for here, again in (("padded", False), (layout, True)):
        policy, critic = both("llama", tokenizer)
        if again:
            use_gradient_checkpointing(policy)
            use_gradient_checkpointing(critic)
        forest = lay_out(TREES, here)
        log_prob = Scorer(policy, here)(forest)["log_prob"]
        value = Scorer(critic, here)(forest, (VALUE,))[VALUE]  # before the policy's backward
        (log_prob.sum() + value.square().sum()).backward()
        found.append([p.grad for model in (policy, critic) for p in model.parameters() if p.grad is not None])
    assert len(found[0]) == len(found[1]) > 20
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


def test_an_architecture_without_a_score_head_is_refused(tokenizer):
    policy = build(PLAIN["mamba"]())
    with pytest.raises(UserError, match="transformers has no sequence classification model for MambaForCausalLM"):
        value_model(policy, tokenizer, 0, False)


@pytest.mark.parametrize("name", ["llama", "gpt2", "mistral (window)"])
def test_a_token_classifier_has_the_value_of_each_slot(name, tokenizer, tmp_path):
    """By transformers' own classes, from one folder that both read."""
    config = FOREST[name]()
    config.num_labels, config.pad_token_id = 1, None
    torch.manual_seed(1)
    critic = AutoModelForSequenceClassification.from_config(config).eval()
    token_classifier(critic).save_pretrained(tmp_path)
    model, info = AutoModelForTokenClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    ids = torch.randint(1, 90, (1, 12), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        want = [critic(ids[:, : end + 1]).logits.item() for end in range(ids.shape[1])]
        found = model(ids).logits
    assert model.dropout.p == 0
    assert found.shape == (1, 12, 1)
    assert found[0, :, 0].tolist() == pytest.approx(want, abs=1e-5)
    if name != "gpt2":  # whose head has another name there
        again, info = AutoModelForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
        assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        assert torch.equal(again.score.weight, critic.score.weight)


def test_an_architecture_without_a_token_classifier_has_none():
    config = FOREST["opt"]()
    config.num_labels = 1
    assert token_classifier(AutoModelForSequenceClassification.from_config(config)) is None
