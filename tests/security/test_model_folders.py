"""A model's folder from a stranger: whatever is wrong with it is one sentence, within seconds, and nothing of it is run."""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path

import pytest
import torch
from checkout import ROOT
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from alignzoo.core.errors import UserError
from alignzoo.models.loading import pretrained
from alignzoo.models.oracle import sequence_logits
from alignzoo.models.tokenizers import pretrained_tokenizer

sys.path.insert(0, str(ROOT / "benchmarks" / "fuzz"))


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A model in shards with a byte-level tokenizer and a chat template."""
    from artifacts import tokenizer

    folder = tmp_path_factory.mktemp("models") / "llama"
    config = LlamaConfig(
        hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=320, eos_token_id=0
    )
    LlamaForCausalLM(config).save_pretrained(folder, max_shard_size="8KB")
    tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(good, tmp_path):
    return Path(shutil.copytree(good, tmp_path / "llama"))


def set_in(path: Path, *way, value):
    tree = inside = json.loads(path.read_text())
    for step in way[:-1]:
        inside = inside[step]
    inside[way[-1]] = value
    path.write_text(json.dumps(tree))


def of_config(key, value):
    return lambda folder: set_in(folder / "config.json", key, value=value)


def index(value):
    return lambda folder: (folder / "model.safetensors.index.json").write_text(json.dumps(value))


def shard_named(name):
    def change(folder):
        path = folder / "model.safetensors.index.json"
        weights = json.loads(path.read_text())["weight_map"]
        path.write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(weights, name)}))

    return change


def truncated(folder):
    path = next(folder.glob("model-00001*"))
    path.write_bytes(path.read_bytes()[:-20])


def linked(folder):
    path = next(folder.glob("model-00001*"))
    path.rename(folder.parent / "elsewhere.safetensors")
    path.symlink_to(folder.parent / "elsewhere.safetensors")


MODELS = {
    "no heads": (of_config("num_attention_heads", 0), "no model could be loaded from .*llama': "),
    "unknown activation": (of_config("hidden_act", "nonsense"), "nonsense"),
    "unknown rope": (of_config("rope_parameters", {"rope_type": "nonsense", "rope_theta": 1e4}), "no model could be loaded"),
    "rope of a number": (of_config("rope_parameters", 3), "no model could be loaded"),
    "missing quantizer": (of_config("quantization_config", {"quant_method": "aqlm"}), "no model could be loaded"),
    "a billion layers": (of_config("num_hidden_layers", 10**9), "config.json: the model can't be read: its parser took more than"),
    "a vocabulary of 4 billion": (of_config("vocab_size", 4 * 10**9), "describes a model of 64,.* parameters, and its weights have"),
    "config is a list": (lambda folder: (folder / "config.json").write_text("[]"), "config.json: not a JSON object"),
    "generation config is a list": (lambda folder: (folder / "generation_config.json").write_text("[1]"), "generation_config.json: not a JSON object"),
    "truncated weights": (truncated, "model-00001-of-00003.safetensors: damaged: .* truncated"),
    "index is a list": (index([1]), "index.json: not a JSON object"),
    "index without weight_map": (index({"metadata": {}}), "index.json: no index of weights"),
    "index of numbers": (index({"weight_map": {"a": 3}}), "index.json: no index of weights"),
    "index leads out": (shard_named("../elsewhere.safetensors"), "'../elsewhere.safetensors' is outside of this folder"),
    "index names nothing": (shard_named("nothing.safetensors"), "nothing.safetensors: no such file"),
    "pickled shards": (shard_named("pytorch_model.bin"), "a pickled file can run any code"),
    "linked weights": (linked, "a link out of its folder"),
    "weights of its own choice": (of_config("transformers_weights", "x.safetensors.index.json"), "names a file of weights of its own"),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.slow
def test_a_broken_model_is_one_sentence(folder, name, monkeypatch):
    from alignzoo.models import folder_checks

    monkeypatch.setattr(folder_checks, "SECONDS", 2.0)
    change, words = MODELS[name]
    change(folder)
    began = time.process_time()
    with pytest.raises(UserError, match=words):
        pretrained(str(folder), None, 0, "language_model", "float32")
    assert time.process_time() - began < 10


@pytest.fixture
def altered(tmp_path):
    """Save a model whose weights a function has changed, and return its folder."""
    from artifacts import save_model

    def make(change, *architecture, **config):
        folder = tmp_path / "altered"
        save_model(folder, *architecture, **config)
        weights = {name: value.clone() for name, value in load_file(folder / "model.safetensors").items()}
        change(weights)
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
        return str(folder)

    return make


def test_a_missing_expert_is_one_sentence_without_a_traceback(altered, capfd):
    """transformers logs the traceback of the experts that it could not join, in a report on the weights."""
    folder = altered(
        lambda weights: weights.pop("model.layers.0.block_sparse_moe.experts.1.w1.weight"), "Mixtral",
        num_key_value_heads=1, num_local_experts=2,
    )  # fmt: skip
    with pytest.raises(
        UserError, match="parts of a weight that the model has as one, such as the experts of a layer, are"
    ):
        pretrained(folder, None, 0, "language_model", "float32")
    assert capfd.readouterr().err == ""


def test_weights_that_are_left_out_are_one_line(altered, capfd):
    folder = altered(lambda weights: weights.update({f"vision.{n}.weight": torch.ones(2) for n in range(2)}))
    pretrained(folder, None, 0, "language_model", "float32")
    assert capfd.readouterr().err == (
        f"model.path: {folder}: the model has no place for vision.0.weight and 1 more of these weights, which are left out\n"
    )


TEMPLATES = ["{{ 9**(9**(9**9)) }}", "{% for i in range(10**12) %}{% endfor %}", "{{ 'a' * 10**11 }}"]
TOKENIZERS = {
    "unknown type": (("model", "type"), "Nonsense", "no tokenizer could be loaded"),
    "an id of 4 billion": (("added_tokens", 0, "id"), 2**32 - 1, "tokenizer.json: the token .* has the id 4294967295"),
    "a negative id": (("model", "vocab", "a"), -1, "tokenizer.json: the token 'a' has the id -1"),
}  # fmt: skip


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_broken_tokenizer_is_one_sentence(folder, name):
    way, value, words = TOKENIZERS[name]
    set_in(folder / "tokenizer.json", *way, value=value)
    with pytest.raises(UserError, match=words):
        pretrained_tokenizer(str(folder))


def test_the_json_of_a_model_has_a_size(folder, monkeypatch):
    from alignzoo.models import folder_checks

    monkeypatch.setattr(folder_checks, "JSON_BYTES", 100)
    with pytest.raises(UserError, match=r"tokenizer\.json: .* bytes are too many; expected at most 100 bytes"):
        pretrained_tokenizer(str(folder))
    with pytest.raises(UserError, match=r"config\.json: .* bytes are too many; expected at most 100 bytes"):
        pretrained(str(folder), None, 0, "language_model", "float32")


def test_a_tokenizer_that_can_not_be_copied_is_one_sentence(folder):
    """Two tokens have one id, and the library writes one of them."""
    path = folder / "tokenizer.json"
    set_in(path, "model", "vocab", "content", value=json.loads(path.read_text())["model"]["vocab"]["ent"])
    trimmed = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    set_in(path, "post_processor", value=trimmed)
    with pytest.raises(UserError, match=r"llama: the tokenizer can't be read: Exception: .*out of vocabulary"):
        pretrained_tokenizer(str(folder))


@pytest.mark.slow
def test_a_template_that_hangs_or_fills_memory_ends_in_its_child(folder, monkeypatch):
    from alignzoo.models import folder_checks

    monkeypatch.setattr(folder_checks, "SECONDS", 0.5)
    for template in TEMPLATES:
        (folder / "chat_template.jinja").write_text(template)
        try:
            pretrained_tokenizer(str(folder))  # jinja's sandbox refuses long ranges by itself
        except UserError as error:
            assert "llama: the tokenizer can't be read" in str(error)
        else:
            assert "range" in template


def test_a_model_whose_settings_do_not_fit_fails_in_its_forward_with_its_name(folder):
    model = pretrained(str(folder), None, 0, "language_model", "float32")
    model.model.layers[0].self_attn.head_dim = 3
    with pytest.raises(UserError, match=r"model: .*llama: the forward pass of LlamaForCausalLM fails"):
        sequence_logits(model, [1, 2])


def test_the_hub_cache_may_link_to_its_blobs_and_nowhere_else(good, tmp_path):
    blobs, snapshot = tmp_path / "models--a--b" / "blobs", tmp_path / "models--a--b" / "snapshots" / "0123"
    for folder in (blobs, snapshot):
        folder.mkdir(parents=True)
    for number, path in enumerate(sorted(good.iterdir())):
        shutil.copy(path, blobs / str(number))
        (snapshot / path.name).symlink_to(f"../../blobs/{number}")
    assert pretrained(str(snapshot), None, 0, "language_model", "float32").config.hidden_size == 8
    assert pretrained_tokenizer(str(snapshot)).eos_token
    (tmp_path / "by-link").symlink_to(snapshot)
    assert pretrained(str(tmp_path / "by-link"), None, 0, "language_model", "float32").config.hidden_size == 8
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").symlink_to(good / "config.json")
    with pytest.raises(UserError, match=r"config\.json: a link out of its folder"):
        pretrained(str(snapshot), None, 0, "language_model", "float32")


@pytest.fixture
def hub(good, tmp_path, monkeypatch):
    """A hub with the model "a/b" in shards, and the names that were downloaded from it."""
    import fnmatch

    import huggingface_hub

    from alignzoo.models import from_pretrained

    snapshot = tmp_path / "models--a--b" / "snapshots" / "0123"
    (tmp_path / "models--a--b" / "blobs").mkdir(parents=True)
    there = Path(shutil.copytree(good, tmp_path / "there"))
    downloaded = []

    def download(source, revision, allow_patterns, ignore_patterns=()):
        assert source == "a/b"
        assert revision in (None, "0123")
        snapshot.mkdir(parents=True, exist_ok=True)
        for path in there.iterdir():
            if any(fnmatch.fnmatch(path.name, one) for one in allow_patterns) and not (snapshot / path.name).exists():
                downloaded.append(path.name)
                shutil.copy(path, tmp_path / "models--a--b" / "blobs")
                (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")
        return str(snapshot)

    class Auto:
        """Loads what was downloaded."""

        def __init__(self, auto):
            self.from_config = auto.from_config
            self.real = auto

        def from_pretrained(self, source, revision, **options):
            assert (source, revision) == ("a/b", "0123")
            downloaded.append("loaded")
            return self.real.from_pretrained(str(snapshot), **options)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return there, downloaded, Auto, from_pretrained


ELSEWHERE = {"peft_type": "LORA", "base_model_name_or_path": "../elsewhere", "megatron_core": "antigravity"}


def test_an_adapter_beside_the_weights_leads_nowhere(folder):
    """transformers would load it, pickled or not, and peft import what it names: also for a judge."""
    from transformers import AutoModelForSequenceClassification

    from alignzoo.models.from_pretrained import call_from_pretrained

    (folder / "adapter_config.json").write_text(json.dumps(ELSEWHERE))
    (folder / "adapter_model.bin").write_bytes(b"never")
    for load in (
        lambda: pretrained(str(folder), None, 0, "language_model", "float32"),
        lambda: call_from_pretrained(AutoModelForSequenceClassification, str(folder), None, "model", False),
    ):
        with pytest.raises(UserError, match=r"an adapter, and (whole weights are needed|a policy starts from whole)"):
            load()


def test_an_adapter_of_a_hub_model_is_not_followed(hub):
    """The base model that it names would be loaded in place of the one that is checked."""
    from transformers import AutoModelForCausalLM

    there, downloaded, auto, module = hub
    (there / "adapter_config.json").write_text(json.dumps(ELSEWHERE))
    with pytest.raises(UserError, match=r"adapter_config\.json: an adapter, and whole weights are needed"):
        module.call_from_pretrained(auto(AutoModelForCausalLM), "a/b", None, "model", False)
    assert "loaded" not in downloaded


def test_the_weights_of_a_hub_model_are_checked_between_download_and_load(hub):
    from transformers import AutoModelForCausalLM

    there, downloaded, auto, module = hub
    truncated(there)
    (there / "pytorch_model.bin").write_bytes(b"never")
    with pytest.raises(UserError, match=r"model-00001-of-00003.safetensors: damaged: .* truncated"):
        module.call_from_pretrained(auto(AutoModelForCausalLM), "a/b", None, "model", False)
    assert "model-00003-of-00003.safetensors" in downloaded
    assert "loaded" not in downloaded
    assert "pytorch_model.bin" not in downloaded


def test_a_hub_model_that_describes_more_than_its_weights_is_refused_after_the_download(hub):
    from transformers import AutoModelForCausalLM

    there, downloaded, auto, module = hub
    set_in(there / "config.json", "vocab_size", value=10**8)
    with pytest.raises(UserError, match=r"describes a model of .* parameters, and its weights have"):
        module.call_from_pretrained(auto(AutoModelForCausalLM), "a/b", None, "model", False)
    assert "loaded" not in downloaded


@pytest.mark.slow
def test_a_config_that_names_a_billion_labels_ends_in_its_child(folder, monkeypatch):
    from transformers import AutoConfig

    from alignzoo.models import folder_checks
    from alignzoo.models.from_pretrained import call_from_pretrained

    monkeypatch.setattr(folder_checks, "CONFIG_SECONDS", 0.5)
    set_in(folder / "config.json", "num_labels", value=10**9)
    with pytest.raises(UserError, match=r"config\.json: the config can't be read: its parser took more than"):
        call_from_pretrained(AutoConfig, str(folder), None, "config", False)
