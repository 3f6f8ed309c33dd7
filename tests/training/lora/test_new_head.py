"""A score head that training starts without weights for is trained and saved, whatever the adapters' targets are."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from architectures import FOREST
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, LlamaForCausalLM, LlamaForSequenceClassification

from alignzoo.core.errors import UserError
from alignzoo.interfaces.model_source import Lora
from alignzoo.models.adapters import add_adapters, disabled_adapters, read_adapter, write_adapter
from alignzoo.models.loading import pretrained
from alignzoo.training.adapt import adapt

NAMED = Lora(r=4, target_modules=("q_proj", "v_proj"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A language model, a reward model and a classifier with three labels, on disk."""
    root = tmp_path_factory.mktemp("folders")
    torch.manual_seed(0)
    LlamaForCausalLM(FOREST["llama"]()).save_pretrained(root / "lm")
    for name, labels in (("reward", 1), ("classifier", 3)):
        config = FOREST["llama"]()
        config.num_labels = labels
        LlamaForSequenceClassification(config).save_pretrained(root / name)
    return root


@pytest.mark.parametrize("targets", [NAMED.target_modules, ("all-linear",)], ids=["named", "all"])
def test_a_new_head_is_trained_and_saved(folders, tmp_path, targets):
    """The merged model scores as the trained one does: by peft's own loading and merging."""
    model = pretrained(str(folders / "lm"), None, 0, "scalar", "float32")
    model.config.pad_token_id = None
    model.save_pretrained(tmp_path / "base")
    start = model.score.weight.detach().clone()
    add_adapters(model, Lora(r=4, target_modules=targets), 0, str(tmp_path / "base"))
    ids = torch.arange(1, 12)[None]
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=1.0)
    untouched = model(ids).logits.detach()
    model(ids).logits.sum().backward()
    optimizer.step()
    moved = model(ids).logits.detach()
    assert not torch.equal(moved, untouched)
    (tmp_path / "adapter").mkdir()
    write_adapter(model, tmp_path / "adapter")
    base = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base", num_labels=1)
    merged = PeftModel.from_pretrained(base, str(tmp_path / "adapter")).merge_and_unload()
    torch.testing.assert_close(merged(ids).logits, moved, atol=1e-5, rtol=1e-5)
    assert not torch.equal(merged.score.weight, start)
    again = pretrained(str(folders / "lm"), None, 0, "scalar", "float32")
    again.config.pad_token_id = None
    read_adapter(again, tmp_path / "adapter")
    assert torch.equal(again(ids).logits, moved)
    with disabled_adapters(model):
        assert torch.equal(model(ids).logits, untouched)


def test_a_trained_head_stays_as_it_is(folders):
    model = pretrained(str(folders / "reward"), None, 0, "scalar", "float32")
    add_adapters(model, NAMED, 0)
    assert not any("score" in name for name, one in model.named_parameters() if one.requires_grad)


@pytest.mark.parametrize(
    ("folder", "targets", "words"),
    [
        ("lm", ("q_proj",), "score head: new, so it is trained as a whole and saved"),
        ("reward", ("q_proj",), "score head: it came with the weights and stays frozen"),
        ("reward", ("q_proj", "score"), "is trained through an adapter"),
    ],
)
def test_the_first_lines_of_a_run_say_what_happens_to_the_score_head(folders, tmp_path, folder, targets, words):
    lines: list[str] = []
    lora = Lora(r=4, target_modules=targets)
    source = SimpleNamespace(lora=lora, origin=(str(folders / folder), None))
    recipe = SimpleNamespace(model=source, objective=SimpleNamespace(head="scalar"), seed=0)
    run = SimpleNamespace(path=tmp_path, writes=False)
    job = SimpleNamespace(
        recipe=recipe, folder=run, start=None, ranks=SimpleNamespace(sharded=False),
        screen=SimpleNamespace(info=lines.append),
    )  # fmt: skip
    model = pretrained(str(folders / folder), None, 0, "scalar", "float32")
    adapt(job, model, None)
    assert [line for line in lines if words in line] == [lines[-1]]
    trained = [name for name, one in model.named_parameters() if one.requires_grad and "score" in name]
    assert bool(trained) == ("frozen" not in words)


@pytest.mark.parametrize(
    ("folder", "head", "words"),
    [
        ("reward", "language_model", "a reward model or a classifier, which has no language model head"),
        ("classifier", "language_model", "a reward model or a classifier, which has no language model head"),
        ("classifier", "scalar", "a classifier with 3 labels, and a reward model has one"),
    ],
)
def test_weights_of_another_kind_are_a_sentence(folders, folder, head, words):
    with pytest.raises(UserError, match=words):
        pretrained(str(folders / folder), None, 0, head, "float32")


def test_weights_that_are_not_all_there_are_a_sentence(folders, tmp_path):
    from safetensors.torch import load_file, save_file

    model = LlamaForCausalLM.from_pretrained(folders / "lm")
    model.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["model.layers.0.mlp.up_proj.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"lack model.layers.0.mlp.up_proj.weight, which would be initialized"):
        pretrained(str(tmp_path), None, 0, "language_model", "float32")
