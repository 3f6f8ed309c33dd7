"""Whole tiny runs that distill from a live teacher: the loss is that of whole logits, and nothing but speed changes it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from byte_tokenizer import byte_tokenizer
from checkout import ROOT
from jobs import SMALLEST, bytes_of, start, unfinish
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM

import alignzoo
from alignzoo.core.console import Screen
from alignzoo.core.errors import UserError
from alignzoo.recipe.load import load_recipe
from alignzoo.report.summary import summary_lines
from alignzoo.training.records import Line, read_lines
from alignzoo.training.row_scores import write_scores

PLUGIN = str(ROOT / "plugins" / "alignzoo-distill" / "alignzoo_distill.py")
GKD = {"name": "gkd", "beta": 0.5}
FORWARD = {"name": "forward_kl", "reduction": "batch_tokens"}


@pytest.fixture
def sft(run, tmp_path) -> Path:
    """The policy that the student starts from."""
    return next((tmp_path / "runs").glob("sft_hh-*")) / "policy"


@pytest.fixture
def teacher(sft, tmp_path) -> Path:
    """A model some way off."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(sft)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    model.save_pretrained(tmp_path / "teacher")
    return tmp_path / "teacher"


@pytest.fixture
def recipe(sft, tmp_path):
    """Write a recipe whose student starts from the SFT run, and whose teacher is the one above."""

    def write(**changes) -> str:
        node = {
            "extends": str(ROOT / "recipes" / "dpo_hh.yaml"), "plugins": [PLUGIN], "objective": GKD,
            "references": {"reference": {"path": str(tmp_path / "teacher"), "tokenizer": str(sft)}},
        }  # fmt: skip
        (tmp_path / "distill.yaml").write_text(yaml.safe_dump(node | changes))
        return str(tmp_path / "distill.yaml")

    return write


def lines(result: alignzoo.RunResult, kind: str) -> list[dict]:
    return [line for line in read_lines(result.folder / "metrics.jsonl", Line) if line["kind"] == kind]


def whole_logits(path: Path, student: Path, teacher: Path) -> dict[str, float]:
    """The loss of the held-out rows' chosen completions from transformers' own logits, in float64, by reduction."""
    models = [AutoModelForCausalLM.from_pretrained(folder).eval() for folder in (student, teacher)]
    each = []
    for line in map(json.loads, path.read_text().splitlines()):
        ids = torch.tensor([line["prompt_tokens"] + line["chosen"]["tokens"]])
        count = len(line["chosen"]["tokens"])
        with torch.no_grad():
            s, t = (model(ids).logits[0, -count - 1 : -1].double().softmax(-1) for model in models)
        m = (s + t) / 2
        js = (t * (t / m).log() + s * (s / m).log()).sum(1) / 2
        each.append((js, (t * (t / s).log()).sum(1)))
    return {
        "gkd": float(torch.stack([js.mean() for js, _ in each]).mean()),
        "forward_kl": float(torch.cat([kl for _, kl in each]).mean()),
    }


@pytest.mark.slow
def test_the_loss_is_that_of_whole_logits_and_falls_and_a_run_resumes(run, recipe, sft, teacher, tmp_path):
    result = run(recipe())
    write_scores(load_recipe(recipe(), [], ["tests/smallest.yaml"]), tmp_path / "s.jsonl", "held_out", Screen(True))
    want = whole_logits(tmp_path / "s.jsonl", sft, teacher)
    first, *_, last = lines(result, "eval")
    assert first["loss"] == pytest.approx(want["gkd"], rel=1e-4)
    assert last["loss"] < first["loss"]
    assert ("reference", "the model that the recipe names, beside the policy") in summary_lines(result.summary)
    kept = bytes_of(result.folder)
    unfinish(result.folder)
    assert bytes_of(run(recipe()).folder) == kept
    other = lines(run(recipe(objective=FORWARD), "train.max_steps=1"), "eval")
    assert other[0]["loss"] == pytest.approx(want["forward_kl"], rel=1e-4)


@pytest.mark.slow
@pytest.mark.usefixtures("teacher")
def test_micro_batches_and_processes_change_nothing_but_speed(run, recipe, tmp_path):
    result = run(recipe(), "name=run", "train.max_steps=4")
    small = run(recipe(), "name=small", "train.max_steps=4", "train.micro_batch_tokens=64")
    job = start(tmp_path, ["run", recipe(), *SMALLEST, "name=two", "train.max_steps=4"], 2)
    assert job.wait() == [0, 0], job.said()
    (two,) = (tmp_path / "runs").glob("two-*")
    weights = [load_file(folder / "policy" / "model.safetensors") for folder in (result.folder, small.folder, two)]
    for other in weights[1:]:
        for key, value in weights[0].items():
            assert np.abs(other[key] - value).max() <= 2e-5 * np.abs(value).max(), key


@pytest.mark.slow
def test_a_teacher_may_have_more_logits_but_not_fewer(run, recipe, sft, teacher, tmp_path):
    """Padding beyond the tokenizer: larger models of a family have more of it."""
    wide = AutoModelForCausalLM.from_pretrained(teacher)
    wide.resize_token_embeddings(wide.config.vocab_size + 7, mean_resizing=False)
    wide.save_pretrained(tmp_path / "wide")
    references = {"reference": {"path": str(tmp_path / "wide"), "tokenizer": str(sft)}}
    first, same = (
        lines(run(recipe(**changes), "train.max_steps=1"), "eval")[0]["loss"]
        for changes in ({"references": references}, {})
    )
    assert first == pytest.approx(same, rel=1e-5)
    wide.save_pretrained(sft)
    with pytest.raises(
        UserError, match=r"references\.reference: it has [\d,]+ logits, and the policy has [\d,]+: their"
    ):
        run(recipe(), "train.max_steps=2")


@pytest.mark.slow
def test_a_teacher_with_another_tokenizer_is_an_error_before_training(run, recipe, sft, tmp_path):
    byte_tokenizer().save_pretrained(tmp_path / "bytes")
    path = recipe(references={"reference": {"path": str(sft), "tokenizer": str(tmp_path / "bytes")}})
    with pytest.raises(
        UserError, match=r"references\.reference: its tokenizer differs from the policy's in [\d,]+ tok"
    ):
        run(path)


def test_a_teacher_has_to_be_named(recipe):
    with pytest.raises(UserError, match=r"objective: gkd learns from another model, such as a teacher, which the reci"):
        load_recipe(recipe(references={}), [], ["tests/smallest.yaml"])
