"""Nothing that a user may download is unpickled: weights are safetensors, everything else is JSON or text."""

from __future__ import annotations

import ast
import json
import pickle
import re
from pathlib import Path

import pytest
import torch
from checkout import ROOT
from transformers import LlamaConfig, LlamaForCausalLM

import alignzoo
from alignzoo.core.errors import UserError
from alignzoo.evaluation.judges.classifier import Classifier
from alignzoo.models.loading import from_config, pretrained

SOURCES = sorted(
    [
        *(ROOT / "alignzoo").rglob("*.py"),
        *(ROOT / "plugins").glob("*/*.py"),
        *(ROOT / "plugins").glob("*/alignzoo_*/*.py"),
    ]
)
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "tarfile", "zipfile"}
"""Modules that run code from a file, or unpack one to wherever it says."""
BETWEEN_RANKS = {"process_group.py"}
"""`gather_object` pickles between the ranks of one run, on one user's machines: nothing of it comes from a file."""
EVERYWHERE = {"eval", "exec"}
RUNS_SOURCE = {"loading.py"}
"""The one `exec`: of a plugin file that the recipe names."""


def calls(path: Path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield node, ast.unparse(node.func)


def offences(path: Path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        yield from (f"line {node.lineno}: {name}" for name in names if name.split(".")[0] in MODULES)
    for node, name in calls(path):
        options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        wrong = (
            (name.startswith("torch.") and name.endswith("load") and options.get("weights_only") != "True")
            or options.get("allow_pickle", "False") != "False"
            or (re.search(r"(gather|broadcast|scatter|reduce)_object", name) and path.name not in BETWEEN_RANKS)
            or (name in EVERYWHERE and path.name not in RUNS_SOURCE)
            or (re.fullmatch(r"yaml\.(\w+_)?load(_all)?", name) and not name.startswith("yaml.safe_"))
        )
        if wrong:
            yield f"line {node.lineno}: {name}"


def test_no_source_file_unpickles():
    assert len(SOURCES) > 150
    found = {path.name: list(offences(path)) for path in SOURCES}
    assert not {name: lines for name, lines in found.items() if lines}


@pytest.mark.parametrize(
    "line",
    ["import pickle", "from joblib import load", "torch.load(f)", "torch.load(f, weights_only=False)", "eval(text)",
     "np.load(f, allow_pickle=True)", "yaml.load(f, Loader)", "accelerate.utils.gather_object(x)", "torch.hub.load(x)"],
)  # fmt: skip
def test_the_search_finds_it(line, tmp_path):
    path = tmp_path / "source.py"
    path.write_text(line)
    assert len(list(offences(path))) == 1


def test_every_from_pretrained_says_what_it_opens():
    """Code that comes with a model is refused by name everywhere, so that transformers never asks on stdin."""
    for path in SOURCES:
        words = re.sub(
            r'""".*?"""|"[^"\n]*"|\'[^\'\n]*\'|#[^\n]*', "", path.read_text(encoding="utf-8"), flags=re.DOTALL
        )
        for opened in re.findall(r"(\w+)\.from_pretrained\(", words):
            if opened in (
                "LoraConfig",
                "PeftModel",
            ):  # JSON; and an adapter, of which is checked that it is safetensors
                assert "WEIGHTS" in words, path
                continue
            assert "trust_remote_code" in path.read_text(), path
            if opened == "auto":  # the one function that opens everything: whoever asks it for a model says so
                assert "use_safetensors=True" in (ROOT / "alignzoo" / "models" / "loading.py").read_text()
            else:
                assert opened == "AutoConfig" or "use_safetensors" in path.read_text(), path


class Bomb:
    def __reduce__(self):
        return exec, (f"open({str(BOMB)!r}, 'w').close()",)


BOMB = Path("unset")


@pytest.fixture
def bomb(tmp_path):
    """A file that is there once anybody has unpickled a Bomb."""
    global BOMB
    BOMB = tmp_path / "exploded"
    return BOMB


@pytest.fixture
def pickled(tmp_path, bomb):
    """A small Llama's folder whose weights are pickled, with a bomb in them."""
    folder = tmp_path / "model"
    config = LlamaConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=300
    )
    config.save_pretrained(folder)
    state = LlamaForCausalLM(config).state_dict()
    torch.save(state | {"more": Bomb()}, folder / "pytorch_model.bin")
    return folder


def test_the_bomb_works(bomb):
    pickle.loads(pickle.dumps(Bomb()))
    assert bomb.exists()


@pytest.mark.parametrize("head", ["language_model", "scalar"])
def test_pickled_weights_are_rejected_with_the_conversion(pickled, bomb, head):
    with pytest.raises(UserError) as error:
        pretrained(str(pickled), None, 0, head, "float32")
    assert "has no weights in safetensors, only pytorch_model.bin" in str(error.value)
    assert "save_pretrained" in str(error.value)
    assert not bomb.exists()


def test_a_recipe_on_pickled_weights_fails_with_the_same_words(pickled, bomb, capfd):
    overlay = pickled.parent / "pickled.yaml"
    overlay.write_text(
        "model: {path: ./model, tokenizer: {train: bytes}}\ndata: {max_train_rows: 32, held_out_rows: 8}"
    )
    with pytest.raises(UserError, match=r"safetensors"):
        alignzoo.run("sft_hh", [], [overlay])
    assert not bomb.exists()


def test_a_judge_with_pickled_weights_is_rejected(pickled, bomb):
    with pytest.raises(UserError, match="no weights in safetensors"):
        Classifier(path=str(pickled), label=0).scores(["a"], ["b"])
    assert not bomb.exists()


def test_beside_safetensors_a_pickled_file_is_not_opened(pickled, bomb, tmp_path):
    class Tokens:
        pad_token_id, bos_token_id, eos_token_id = 0, 1, 2

        def __len__(self):
            return 300

        def get_vocab(self):
            return {}

    fields = json.loads((pickled / "config.json").read_text())
    keep = ("model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
    model = from_config({key: fields[key] for key in keep}, Tokens(), 0, "language_model", "float32")
    model.save_pretrained(pickled)
    loaded = pretrained(str(pickled), None, 0, "language_model", "float32")
    assert torch.equal(loaded.get_input_embeddings().weight, model.get_input_embeddings().weight)
    assert not bomb.exists()


@pytest.mark.slow
def test_a_run_leaves_nothing_pickled(tmp_path):
    alignzoo.run("sft_hh", ["train.max_steps=2", "train.checkpoint_every=1"], ["tests/smallest.yaml"])
    kinds = {path.suffix for root in ("runs", "cache") for path in (tmp_path / root).rglob("*") if path.is_file()}
    assert {".safetensors", ".json", ".jsonl", ".yaml"} <= kinds
    assert kinds <= {".safetensors", ".json", ".jsonl", ".yaml", ".html", ".lock", ".txt", "", ".jinja"}, kinds
