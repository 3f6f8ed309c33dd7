"""A reward model with several outputs, from data to its exported folder, against transformers' own forward."""

from __future__ import annotations

import json
from itertools import islice

import pytest
import torch
import yaml
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import alignzoo
from alignzoo.core.console import Screen
from alignzoo.data import toy
from alignzoo.data.row_reader import RowReader
from alignzoo.recipe.load import load_recipe
from alignzoo.training.export import export_run
from alignzoo.training.records import Line, read_lines

PLUGIN = '''
from alignzoo import Field, Objective, hookimpl

class Rated(Objective):
    """A regression of each rating."""
    name = "rated"
    head = "scalar"
    reference = "none"
    column_fields = output_fields = ("ratings",)
    ratings: tuple[str, ...] = Field(("kind", "short"), description="columns")
    def loss(self, pair):
        one = pair.chosen
        return sum((one.output(name) - one.column(name)) ** 2 for name in self.ratings)

@hookimpl
def register_objectives():
    return [Rated]
'''


@pytest.mark.slow
def test_a_reward_model_with_several_outputs(trained, tmp_path):
    (tmp_path / "mine.py").write_text(PLUGIN)
    rows = [
        {"prompt": row.prompt, "chosen": row.completions[0].text, "rejected": row.completions[-1].text,
         "kind": i % 3, "chosen_short": i % 2, "rejected_short": 0}
        for i, row in enumerate(islice(toy.rows("train", 4), 40))
    ]  # fmt: skip
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sft = next((trained / "runs").glob("sft_hh-*")) / "policy"
    recipe = {
        "plugins": ["mine.py"], "objective": "rated", "model": {"path": str(sft)}, "reporters": [],
        "data": {"name": "files", "path": "rows.jsonl"}, "eval": {"replies": {"num_prompts": 0}},
        "train": {"batch_size": 8, "max_steps": 4, "checkpoint_every": 2, "optimizer": {"name": "adamw", "learning_rate": 0.01}},
    }  # fmt: skip
    (tmp_path / "rated.yaml").write_text(yaml.safe_dump(recipe))
    result = alignzoo.run(tmp_path / "rated.yaml")
    last = [line for line in read_lines(result.folder / "metrics.jsonl", Line) if line["kind"] == "eval"]
    assert last[-1]["loss"] < last[0]["loss"]
    model = AutoModelForSequenceClassification.from_pretrained(result.policy).eval()
    assert model.config.id2label == {0: "kind", 1: "short"}
    tokenizer = AutoTokenizer.from_pretrained(result.policy)
    held_out = held_out_rows(result)
    total = 0.0
    for row in held_out:
        ids = torch.tensor([tokenizer(row["prompt"] + row["chosen"])["input_ids"] + [tokenizer.eos_token_id]])
        with torch.no_grad():
            found = model(ids).logits[0].double()
        total += float((found[0] - row["kind"]) ** 2 + (found[1] - row["chosen_short"]) ** 2)
    assert last[-1]["loss"] == pytest.approx(total / len(held_out), rel=1e-4)
    export_run(result.folder, tmp_path / "exported", False, "bfloat16", "5GB", False, Screen(True))
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "exported")
    assert torch.equal(again.score.weight, model.score.weight.bfloat16().to(again.score.weight))
    assert again.score.weight.shape[0] == 2


def held_out_rows(result: alignzoo.RunResult) -> list[dict]:
    """The held-out rows of a run."""
    resolved = load_recipe(result.folder / "recipe.yaml")
    lines = (result.folder.parent.parent / "rows.jsonl").read_text().splitlines()
    texts = [row.completions[0].text for held_out, row in RowReader(resolved.recipe.data).used() if held_out]
    return [row for row in map(json.loads, lines) if row["chosen"] in texts]
