"""Whole tiny runs with named references: their scores are those of transformers, cached, checked and shared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from byte_tokenizer import byte_tokenizer
from transformers import AutoModelForCausalLM

import alignzoo
from alignzoo.core.console import Screen
from alignzoo.core.errors import UserError
from alignzoo.recipe.load import load_recipe
from alignzoo.training import policy
from alignzoo.training.records import Line, read_lines
from alignzoo.training.row_scores import write_scores

PLUGIN = '''
from torch.nn.functional import logsigmoid
from alignzoo import Metric, Objective, hookimpl

class Guided(Objective):
    """DPO, plus what a guide thinks, which has no gradient."""
    name = "guided"
    reference = "sequence"
    references = ("guide",)
    tokens = True
    def loss(self, pair):
        guide = pair.chosen.tokens.sum(pair.chosen.tokens.ref("guide"))
        return -logsigmoid(pair.margin) * 0 * pair.chosen.tokens.sum(pair.chosen.tokens.log_prob) + guide

class Live(Objective):
    """DPO plus a KL."""
    name = "live"
    reference = "live"
    tokens = True
    statistics = ("forward_kl",)
    def loss(self, pair):
        return -logsigmoid(0.1 * pair.margin) + pair.chosen.tokens.sum(pair.chosen.tokens.forward_kl)

class Far(Metric):
    """The guide's log-prob of the chosen completion, of the whole sequence."""
    name = "far"
    references = ("guide",)
    def values(self, pair, objective):
        return pair.chosen.ref("guide")

@hookimpl
def register_objectives():
    return [Guided, Live]

@hookimpl
def register_metrics():
    return [Far]
'''


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "mine.py").write_text(PLUGIN)

    def write(**changes) -> str:
        node = {
            "extends": str(Path("recipes/dpo_hh.yaml").resolve()), "plugins": ["mine.py"], "objective": "guided",
            "references": {"guide": "dpo_hh"}, "eval": {"metrics": ["far"]},
        }  # fmt: skip
        (tmp_path / "top.yaml").write_text(yaml.safe_dump(node | changes))
        return str(tmp_path / "top.yaml")

    return write


def evaluation(result: alignzoo.RunResult, step: int = 0) -> dict:
    lines = read_lines(result.folder / "metrics.jsonl", Line)
    return next(line for line in lines if line["kind"] == "eval" and line["step"] == step)


def mean_log_prob(policy: Path, result: alignzoo.RunResult) -> float:
    """The mean over held-out rows of transformers' own log-prob of the chosen completion."""
    model = AutoModelForCausalLM.from_pretrained(policy).eval()
    total = []
    for line in map(json.loads, (result.folder.parent.parent / "scores.jsonl").read_text().splitlines()):
        ids = torch.tensor([line["prompt_tokens"] + line["chosen"]["tokens"]])
        with torch.no_grad():
            log_probs = model(ids).logits[0, :-1].double().log_softmax(-1)
        own = log_probs.gather(1, ids[0, 1:, None])[:, 0]
        total.append(float(own[-len(line["chosen"]["tokens"]) :].sum()))
    return sum(total) / len(total)


@pytest.mark.slow
def test_a_run_is_a_reference_whose_scores_are_transformers_own(again, recipe, tmp_path):
    dpo = again()
    result = again(recipe())
    shards = {path.name for path in (tmp_path / "cache" / "reference").iterdir()}
    assert len(shards) == 2, "one of the start, shared with the DPO run, and one of the guide"
    write_scores(
        load_recipe(recipe(), [], ["tests/smallest.yaml"]), tmp_path / "scores.jsonl", "held_out", Screen(True)
    )
    expected = mean_log_prob(dpo.policy, result)
    first = evaluation(result)
    assert first["far"] == pytest.approx(expected, rel=1e-5)
    assert first["loss"] == pytest.approx(expected, rel=1e-5), "by tokens"
    assert result.summary["reference"]["named"] == ["guide"]
    checks = [line for line in read_lines(result.folder / "metrics.jsonl", Line) if line["kind"] == "exactness"]
    assert sum(line["step"] == 0 for line in checks) == 2, "both references are checked as the cache has them"
    again(recipe(objective={"name": "guided"}), "seed=5")
    assert {path.name for path in (tmp_path / "cache" / "reference").iterdir()} == shards, "scored once"


@pytest.mark.slow
def test_a_reference_that_the_recipe_names_replaces_the_start(again, recipe):
    """At step 0 the policy is the SFT run, and the DPO run is its reference: h has the sign of an untraining."""
    dpo = again()
    trained = evaluation(dpo, 8)
    result = again(recipe(objective={"name": "dpo", "beta": 0.1}, references={"reference": "dpo_hh"}, eval={}))
    first = evaluation(result)
    assert first["margin"] == pytest.approx(-trained["margin"], rel=1e-4)
    assert first["chosen_log_ratio"] == pytest.approx(-trained["chosen_log_ratio"], rel=1e-4)
    assert first["loss"] > 0.6932


@pytest.mark.slow
def test_a_live_reference_may_be_a_folder(again, recipe):
    dpo = again()
    trained = evaluation(dpo, 8)
    path = recipe(objective={"name": "live"}, references={"reference": {"path": str(dpo.policy)}}, eval={})
    first = evaluation(again(path, "train.max_steps=1"))
    assert first["chosen_log_ratio"] == pytest.approx(-trained["chosen_log_ratio"], abs=2e-6)
    assert first["loss"] > 0.6932


@pytest.mark.slow
def test_a_checkpoint_of_a_run_is_a_reference(again, recipe):
    dpo = again()
    folder = next((dpo.folder / "checkpoints").iterdir())
    result = again(recipe(references={"guide": {"path": str(folder), "tokenizer": str(dpo.policy)}}))
    assert evaluation(result)["far"] < 0


def test_a_reference_with_another_tokenizer_is_an_error(again, recipe, tmp_path, monkeypatch):
    dpo, load, loaded = again(), policy.load_tokenizer, []
    monkeypatch.setattr(policy, "load_tokenizer", lambda *source: loaded.append(source[0]) or load(*source))
    again(recipe(references={"guide": {"path": str(dpo.policy)}}), "train.max_steps=1")
    assert [getattr(one, "path", "") for one in loaded].count(str(dpo.policy)) == 1
    byte_tokenizer().save_pretrained(tmp_path / "bytes")
    path = recipe(references={"guide": {"path": str(dpo.policy), "tokenizer": str(tmp_path / "bytes")}})
    with pytest.raises(UserError, match=r"references\.guide: its tokenizer differs from the policy's in [\d,]+ tokens"):
        again(path)
