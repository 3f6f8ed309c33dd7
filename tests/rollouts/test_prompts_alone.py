"""Online runs on prompts alone, and on rows whose completions are not read."""

from __future__ import annotations

import json

import pytest
import yaml
from checkout import ROOT
from safetensors.numpy import load_file

from alignzoo.compare.measure import measure
from alignzoo.compare.spec import Sampling
from alignzoo.core.console import Screen
from alignzoo.core.errors import UserError
from alignzoo.recipe.load import load_recipe
from alignzoo.training.row_scores import exactness_figures, write_scores

SMALLEST = "tests/smallest.yaml"
QUESTIONS = [f"\n\nHuman: question {n} of the sea\n\nAssistant:" for n in range(24)]


def lines(folder, kind: str) -> list[dict]:
    found = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line for line in found if line["kind"] == kind]


def recipe(home, name: str, rows: list[dict]) -> str:
    """A recipe for rows of its own, that starts from the SFT run on other ones."""
    path = home / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"name": "files", "path": str(path), "held_out_fraction": 0.4}
    own = home / f"{name}.yaml"
    own.write_text(yaml.safe_dump({"extends": str(ROOT / "recipes/online/dpo_hh.yaml"), "data": data}))
    return str(own)


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["dpo", "grpo"])
def test_a_run_draws_for_prompts_alone(online, home, objective):
    """With the same draws as for the same prompts with completions, which are not read."""
    alone = recipe(home, "alone", [{"prompt": text, "answer": str(n)} for n, text in enumerate(QUESTIONS)])
    pairs = recipe(home, "pairs", [{"prompt": text, "chosen": " yes", "rejected": " no"} for text in QUESTIONS])
    short = ("train.max_steps=1", "train.checkpoint_every=1", "eval.every=1")
    done, other = (online(objective, *short, recipe=one) for one in (alone, pairs))
    drawn = [load_file(one.folder / "rollouts/000000/drawn/draws.safetensors") for one in (done, other)]
    assert drawn[0].keys() == drawn[1].keys()
    assert all((drawn[0][name] == drawn[1][name]).all() for name in drawn[0])
    figures, of_pairs = lines(done.folder, "eval")[-1], lines(other.folder, "eval")[-1]
    assert {"reward", "kl"} <= set(figures)
    assert "preference_accuracy" not in figures
    assert ("preference_accuracy" in of_pairs) == (objective == "dpo")
    reply = json.loads((done.folder / "samples.jsonl").read_text().splitlines()[0])
    assert (reply["prompt"] in QUESTIONS, reply["chosen"], reply["rejected"]) == (True, "", "")
    if objective == "dpo":  # the same weights: a comparison has the same replies to the same prompts
        settings = Sampling(prompts=3, tokens=4)
        own, beside = (
            measure(load_recipe(one.folder), one.folder, settings, (), None, Screen(quiet=True)) for one in (done, other)
        )  # fmt: skip
        assert set(own.examples) == {"test"}
        assert [line["kl"] for line in own.samples] == pytest.approx([line["kl"] for line in beside.samples], abs=1e-5)
        assert [line["reply"] for line in own.samples] == [line["reply"] for line in beside.samples]
        assert len(own.samples) == 3


@pytest.mark.slow
def test_without_a_rollout_they_are_refused(online, home):
    alone = recipe(home, "alone", [{"prompt": text} for text in QUESTIONS])
    with pytest.raises(
        UserError, match=r"dpo needs completions, and row .* has a prompt alone; .* rollout or draw, which draws"
    ):
        online("dpo", "rollout=null", recipe=alone)


@pytest.mark.slow
def test_rows_without_completions_are_not_scored(online, home):
    """And the model is checked on random continuations of the prompts."""
    pairs = recipe(home, "pairs", [{"prompt": text, "chosen": " yes", "rejected": " no"} for text in QUESTIONS])
    alone = recipe(home, "alone", [{"prompt": text} for text in QUESTIONS])
    short = ["train.max_steps=1", "train.checkpoint_every=1"]
    for path, split, side in (
        (pairs, "all", "training"),
        (alone, "train", "training"),
        (alone, "held_out", "held-out"),
    ):
        if split == "held_out":
            online("dpo", *short, recipe=path)
        resolved = load_recipe(path, online.words("dpo", *short), [SMALLEST])
        with pytest.raises(UserError, match=f"the {side} rows are prompts, and have no completions to score"):
            write_scores(resolved, home / "scores.jsonl", split, Screen(quiet=True))
    figures = exactness_figures(load_recipe(alone, online.words("dpo", *short), [SMALLEST]), Screen(quiet=True))
    assert 0 < figures["difference"] < figures["limit"]
