"""`alignzoo export`: a folder that others can load, all at once or not at all."""

from __future__ import annotations

import json
import re
import shutil
import sys

import pytest
import torch
import yaml
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from alignzoo.cli.app import _exit_code
from alignzoo.core.console import Screen
from alignzoo.core.errors import UserError
from alignzoo.training.export import export_run

pytestmark = pytest.mark.slow

IDS = torch.arange(60)[None]


def export(run, to=None, merge=False, dtype=None, shard="5GB", force=False):
    return export_run(run, to, merge, dtype, shard, force, Screen(quiet=True))


def log_probs(model):
    with torch.no_grad():
        return model.eval()(IDS).logits.float().log_softmax(-1)


@pytest.fixture
def adapter(run):
    """The folder of a run of adapters, and its policy as peft puts it together."""
    result = run()
    base = json.loads((result.policy / "adapter_config.json").read_text())["base_model_name_or_path"]
    return result.folder, PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(result.policy))


def test_an_adapter_is_written_with_tokenizer_and_card(adapter, tmp_path):
    folder, trained = adapter
    to = export(folder, tmp_path / "out")
    assert {path.name for path in to.iterdir()} >= {
        "README.md", "adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    base = AutoModelForCausalLM.from_pretrained(trained.peft_config["default"].base_model_name_or_path)
    assert torch.equal(log_probs(PeftModel.from_pretrained(base, str(to))), log_probs(trained))
    head, text = (to / "README.md").read_text().split("---\n")[1:]
    head = yaml.safe_load(head)
    assert (head["library_name"], head["tags"]) == ("peft", ["alignzoo", "dpo", "lora"])
    assert "base_model" not in head  # a folder of this machine
    assert re.search(r"from the run `sft_hh-\w+`, which started from random weights. This is a LoRA adapter", text)
    assert "AutoPeftModelForCausalLM.from_pretrained" in text
    assert "lora:" in text


def test_merged_weights_are_the_policy_to_rounding(adapter, tmp_path):
    folder, trained = adapter
    to = export(folder, tmp_path / "out", merge=True, shard="20KB")
    assert len(list(to.glob("model-*.safetensors"))) > 3
    assert not (to / "adapter_config.json").exists()
    model = AutoModelForCausalLM.from_pretrained(to)
    difference = (log_probs(model) - log_probs(trained)).abs().max()
    assert difference <= 1e-5
    start = AutoModelForCausalLM.from_pretrained(trained.peft_config["default"].base_model_name_or_path)
    assert (log_probs(model) - log_probs(start)).abs().max() > 10 * difference
    assert AutoTokenizer.from_pretrained(to).eos_token
    assert "merged into its base" in (to / "README.md").read_text()


def test_another_type_rounds_once(adapter, tmp_path):
    folder, _ = adapter
    whole = AutoModelForCausalLM.from_pretrained(export(folder, tmp_path / "whole", merge=True)).state_dict()
    half = AutoModelForCausalLM.from_pretrained(
        export(folder, tmp_path / "half", merge=True, dtype="bfloat16"), dtype="auto"
    ).state_dict()
    for name, tensor in half.items():
        assert tensor.dtype == torch.bfloat16
        assert torch.equal(tensor, whole[name].bfloat16())


def test_a_run_of_whole_weights_is_written_too(run, tmp_path):
    result = run(lora=None)
    to = export(result.folder, tmp_path / "out")
    got, want = (AutoModelForCausalLM.from_pretrained(path).state_dict() for path in (to, result.policy))
    assert all(torch.equal(tensor, got[name]) for name, tensor in want.items())
    assert "These are full weights.\n" in (to / "README.md").read_text()


def test_moved_runs_find_their_base_beside_them(adapter, tmp_path):
    folder, trained = adapter
    want = log_probs(trained)
    (tmp_path / "runs").rename(tmp_path / "moved")
    moved = tmp_path / "moved" / folder.name
    assert (log_probs(AutoModelForCausalLM.from_pretrained(export(moved, merge=True))) - want).abs().max() <= 1e-5
    for other in (tmp_path / "moved").glob("sft_hh-*"):
        shutil.rmtree(other)
    path = moved / "policy" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": "/nowhere/sft_hh-0/policy"}))
    with pytest.raises(
        UserError,
        match=r"the base model of the adapter does not exist: /nowhere/.*; expected that folder, or .*/moved/",
    ):
        export(moved, tmp_path / "out", merge=True)
    assert not (tmp_path / "out").exists()


def test_what_is_there_is_not_written_over(adapter, tmp_path, monkeypatch):
    folder, _ = adapter
    to = tmp_path / "out"
    to.mkdir()
    (to / "mine").write_text("mine")
    with pytest.raises(UserError, match=r"the path exists already\n.*--force replaces it"):
        export(folder, to)
    with pytest.raises(UserError, match="the folder holds no exported model, and --force replaces no other"):
        export(folder, to, force=True)  # it may be anything: a home
    (to / "config.json").write_text("{}")
    with monkeypatch.context() as patch:
        patch.setattr("alignzoo.training.export.model_card", lambda *_: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            export(folder, to, force=True)
    assert sorted(path.name for path in to.iterdir()) == ["config.json", "mine"]
    assert not list(tmp_path.glob(".out.*"))
    export(folder, to, force=True)
    assert not (to / "mine").exists()
    assert (to / "adapter_model.safetensors").exists()


@pytest.mark.parametrize("place", [".", "policy", ".."])
def test_a_run_is_not_written_over(adapter, place):
    folder, _ = adapter
    with pytest.raises(UserError, match="this folder is part of the run"):
        export(folder, folder / place, force=True)
    assert (folder / "policy" / "adapter_model.safetensors").exists()


def test_a_summary_without_more_than_is_needed(adapter, tmp_path):
    folder, _ = adapter
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    summary = json.loads((other / "summary.json").read_text())
    for key in ("objective", "model", "versions"):
        summary[key] = {}
    (other / "summary.json").write_text(json.dumps(summary))
    (other / "policy" / "adapter_model.safetensors").rename(other / "policy" / "adapter_model.bin")
    with pytest.raises(UserError, match=r"adapter_model\.safetensors: no such file"):
        export(other, tmp_path / "pickled")
    (other / "policy" / "adapter_model.bin").rename(other / "policy" / "adapter_model.safetensors")
    assert "alignzoo of an unknown version" in (export(other, tmp_path / "out") / "README.md").read_text()


def test_what_is_no_finished_run_is_reported(adapter, tmp_path):
    folder, _ = adapter
    with pytest.raises(UserError, match=rf"not a run folder; did you mean '{folder.name}'\?"):
        export(folder.with_name(folder.name[:-1]))
    with pytest.raises(UserError, match=r"--dtype: .*expected --merge"):
        export(folder, dtype="bfloat16")
    (folder / "summary.json").unlink()
    with pytest.raises(UserError, match="the run is not finished: it has no policy yet"):
        export(folder)


def test_the_command(adapter, monkeypatch, capsys):
    folder, _ = adapter
    monkeypatch.setattr(sys, "argv", ["alignzoo", "export", str(folder), "--merge"])
    assert _exit_code() == 0
    assert capsys.readouterr().out == f"{folder / 'export-merged'}\n"
    monkeypatch.setattr(sys, "argv", ["alignzoo", "export", str(folder), "--max-shard-size", "big"])
    assert _exit_code() == 2
    assert "expected a size such as 5GB or 500MB" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["alignzoo", "export", str(folder), "--merge"])
    assert _exit_code() == 2
    assert "the path exists already" in capsys.readouterr().err


def test_an_adapter_says_which_folder_it_needs_besides(adapter, tmp_path, capsys):
    folder, trained = adapter
    to = export_run(folder, tmp_path / "out", False, None, "5GB", False, Screen())
    base = trained.peft_config["default"].base_model_name_or_path
    said = " ".join(capsys.readouterr().err.split())
    assert "the adapter needs its base model, a folder of this machine: copy" in said
    assert "or export with --merge" in said
    assert "/".join(base.split("/")[-2:]) in (to / "README.md").read_text()


def test_weights_that_came_in_bfloat16_leave_in_it(run, adapter, tmp_path, capsys):
    """Trained in float32, whole and by adapters, and as the start of another run."""
    folder, _ = adapter
    published = export(folder, tmp_path / "published", merge=True, dtype="bfloat16")
    starts = [f"model={{path: {published}}}", "data.max_train_rows=32", "train.max_steps=1"]
    for lora in (None, "model.lora={r: 4, alpha: 8}"):
        result = run(*starts, recipe="recipes/sft_hh.yaml", lora=lora)
        for dtype, want in ((None, torch.bfloat16), ("float32", torch.float32)):
            to = export_run(result.folder, tmp_path / "out", True, dtype, "5GB", True, Screen())
            assert AutoModelForCausalLM.from_pretrained(to, dtype="auto").dtype == want
        assert "written in bfloat16; it was trained in float32, which --dtype float32 keeps" in " ".join(
            capsys.readouterr().err.split()
        )
