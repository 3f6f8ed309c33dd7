"""Code that comes with a model runs only where the recipe says so, and is then said aloud and recorded."""

from __future__ import annotations

import json
import sys

import pytest
import yaml
from transformers import LlamaConfig, LlamaForCausalLM

import alignzoo
from alignzoo.core import console
from alignzoo.core.errors import UserError
from alignzoo.recipe.load import load_recipe

CODE = """
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM
Path({marker!r}).write_text("ran")

class OwnConfig(LlamaConfig):
    model_type = "own_llama"

class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig
"""


@pytest.fixture
def model(tmp_path, monkeypatch):
    """(folder, marker): a model that needs the code beside it; the marker is there once that code has run."""
    import transformers.dynamic_module_utils as dynamic

    monkeypatch.setattr(dynamic, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(console, "_warned", set())
    folder, marker = tmp_path / "own_model", tmp_path / "ran"
    config = LlamaConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=258
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    fields = json.loads((folder / "config.json").read_text())
    fields |= {"model_type": "own_llama", "architectures": ["OwnModel"]}
    fields["auto_map"] = {"AutoConfig": "own_code.OwnConfig", "AutoModelForCausalLM": "own_code.OwnModel"}
    (folder / "config.json").write_text(json.dumps(fields))
    (folder / "own_code.py").write_text(CODE.format(marker=str(marker)))
    yield folder, marker
    for name in [name for name in sys.modules if name.startswith("transformers_modules")]:
        del sys.modules[name]


def recipe(folder, more=""):
    path = folder.parent / "own.yaml"
    path.write_text(
        f"extends: sft_hh\nmodel: {{path: ./own_model, tokenizer: {{train: bytes}}{more}}}\n"
        "data: {max_train_rows: 32, held_out_rows: 8}\n"
        "train: {max_steps: 2, batch_size: 8}\neval: {replies: {num_prompts: 1, max_new_tokens: 2}}\n"
    )
    return path


def test_without_the_field_it_is_rejected_by_its_name_and_nothing_is_asked(model, monkeypatch):
    folder, marker = model
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("transformers asked on stdin"))
    with pytest.raises(UserError) as error:
        alignzoo.run(recipe(folder))
    assert "own_model' can't be loaded without running Python code" in str(error.value)
    assert "model.trust_remote_code: true" in str(error.value)
    assert not marker.exists()


@pytest.mark.slow
def test_with_the_field_it_runs_is_said_and_recorded_and_holds_for_what_starts_from_it(model, capsys):
    folder, marker = model
    path = recipe(folder, ", trust_remote_code: true")
    done = alignzoo.run(path)
    assert marker.exists()
    said = [line for line in capsys.readouterr().err.splitlines() if "trust_remote_code is true" in line]
    assert f"Python code that comes with '{folder}' will be run" in said[0]
    assert yaml.safe_load((done.folder / "recipe.yaml").read_text())["model"]["trust_remote_code"] is True
    assert (
        list(done.summary["model"]["code"]) == ["__init__.py", "own_code.py"]
        or "own_code.py" in done.summary["model"]["code"]
    )
    child = folder.parent / "child.yaml"
    child.write_text(f"extends: dpo_hh\nmodel: {{from: {path}}}\ndata: {{max_train_rows: 32, held_out_rows: 8}}\n"
                     "train: {max_steps: 1, batch_size: 8}\neval: {replies: {num_prompts: 1, max_new_tokens: 2}}\n")  # fmt: skip
    after = alignzoo.run(child)
    assert load_recipe(after.folder / "recipe.yaml").recipe.model.runs_code
    assert load_recipe(after.folder / "recipe.yaml").fingerprint == load_recipe(child).fingerprint


def test_off_it_is_no_part_of_the_fingerprint(model):
    plain = load_recipe("sft_hh")
    assert "trust_remote_code" not in json.dumps(plain.recipe.model.fingerprint())
    assert plain.plain["model"]["trust_remote_code"] is False


def test_the_overlay_and_the_command_line_reach_the_first_model():
    resolved = load_recipe("dpo_hh", ["model.trust_remote_code=true"])
    assert resolved.recipe.model.runs_code
    assert resolved.start.recipe.model.runs_code


def test_a_dataset_comes_without_a_script(tmp_path, capsys):
    """`datasets` 4 and later run none; a script that lies in the folder is not taken for data either."""
    datasets = pytest.importorskip("datasets")
    assert int(datasets.__version__.split(".")[0]) >= 4
    folder = tmp_path / "evil"
    folder.mkdir()
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()")
    with pytest.raises(UserError):
        load_recipe("sft_hh", [f"data={{name: hub, path: {folder}}}"]).recipe.data.splits()
    assert not (tmp_path / "ran").exists()


def test_no_plugins_runs_none_of_it_whatever_the_recipe_says(model, monkeypatch):
    folder, marker = model
    monkeypatch.setenv("ALIGNZOO_PLUGINS", "none")
    with pytest.raises(UserError, match=r"(?s)without running Python code that comes with it.*--no-plugins"):
        alignzoo.run(recipe(folder, ", trust_remote_code: true"))
    assert not marker.exists()


@pytest.mark.slow
def test_an_export_says_so_before_it_runs_it(model, capsys, monkeypatch):
    from alignzoo.core.console import Screen
    from alignzoo.models import from_pretrained
    from alignzoo.training.export import export_run

    folder, marker = model
    done = alignzoo.run(recipe(folder, ", trust_remote_code: true"))
    marker.unlink()
    for name in [name for name in sys.modules if name.startswith("transformers_modules")]:
        del sys.modules[name]
    console._warned.clear()
    said_before = []
    monkeypatch.setattr(from_pretrained, "warn_once", lambda text: said_before.append((text, marker.exists())))
    export_run(done.folder, folder.parent / "out", False, None, "5GB", False, Screen(quiet=True))
    assert said_before[0][0].startswith("model.trust_remote_code is true")
    assert said_before[0][1] is False
