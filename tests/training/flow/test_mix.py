"""Runs on mixtures, on evaluation sets, and on every row."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

import alignzoo
from alignzoo.compare.measure import measure
from alignzoo.compare.spec import Sampling
from alignzoo.core.console import Screen
from alignzoo.core.errors import UserError
from alignzoo.recipe.load import load_recipe
from alignzoo.training.records import read_lines

SMALLEST = "tests/smallest.yaml"
MODEL = {
    "config": {"model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
               "num_attention_heads": 4}, "tokenizer": {"train": "bytes"},
}  # fmt: skip


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Rows to train on, and rows to evaluate."""
    for name, count in (("train", 40), ("eval", 12)):
        rows = ({"prompt": f"{name} {i}", "chosen": f"yes {i}", "rejected": "no"} for i in range(count))
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def recipe(folder: Path, data: dict, sets: dict) -> Path:
    node = {
        "objective": "dpo", "model": MODEL, "data": data, "tokens": {"max_length": 64, "max_prompt_length": 32},
        "train": {"batch_size": 8, "max_steps": 4, "epochs": 9, "optimizer": {"name": "adamw", "learning_rate": 1e-2}},
        "eval": {"data": sets, "every": 2, "replies": {"num_prompts": 2, "max_new_tokens": 4}, "metrics": ["entropy"]},
        "reporters": ["html"],
    }  # fmt: skip
    path = folder / "mix.yaml"
    path.write_text(yaml.safe_dump(node))
    return path


def evaluations(result) -> list[dict]:
    return [line for line in read_lines(result.folder / "metrics.jsonl") if line["kind"] == "eval"]


EVAL = {"name": "files", "path": "./eval.jsonl"}


@pytest.mark.slow
def test_an_evaluation_set_has_the_figures_of_the_same_rows_held_out(files):
    """Two files as splits of one source, against every row of the first and the second as an evaluation set."""
    (files / "both").mkdir()
    for name, split in (("train", "train"), ("eval", "test")):
        (files / "both" / f"{split}.jsonl").write_text((files / f"{name}.jsonl").read_text())
    split = alignzoo.run(recipe(files, {"name": "files", "path": "./both"}, {}))
    whole = {"name": "files", "path": "./train.jsonl", "held_out_fraction": 0}
    beside = alignzoo.run(recipe(files, whole, {"other": EVAL}))
    assert beside.folder != split.folder
    assert [line["step"] for line in evaluations(beside)] == [0, 2, 4]
    for one, other in zip(evaluations(split), evaluations(beside), strict=True):
        assert "loss" not in other
        assert {f"other/{key}": value for key, value in one.items() if key not in ("kind", "step")} == {
            key: value for key, value in other.items() if "/" in key
        }
    assert beside.summary["eval"]["other/n"] == 12
    assert beside.summary["data"]["held_out"] == 0
    assert beside.summary["data"]["evaluation"]["other"]["used"] == 12
    samples = [json.loads(line) for line in (beside.folder / "samples.jsonl").read_text().splitlines()]
    assert [sample["id"].partition(":")[0] for sample in samples] == ["eval.jsonl"] * 2
    page = (beside.folder / "report.html").read_text()
    assert "evaluated on other" in page
    assert page.count('<details class="row"') == 4, "three training rows and one of the set"
    settings, quiet = Sampling(prompts=2, tokens=4), Screen(quiet=True)
    measured = measure(load_recipe(files / "mix.yaml"), beside.folder, settings, (), None, quiet)
    assert json.loads((measured.path / "about.json").read_text())["ids"] == [f"eval.jsonl:{i}" for i in range(1, 13)]


@pytest.mark.slow
def test_without_any_row_to_evaluate_a_run_trains_alone(files):
    whole = {"name": "files", "path": "./train.jsonl", "held_out_fraction": 0}
    result = alignzoo.run(recipe(files, whole, {}))
    assert evaluations(result) == []
    assert result.summary["data"]["train"] == 40
    assert result.summary["train"]["final_loss"] > 0
    assert result.summary["eval"] == {}
    assert "rows read" in (result.folder / "report.html").read_text()
    with pytest.raises(UserError, match="neither held-out rows nor an evaluation set"):
        measure(load_recipe(files / "mix.yaml"), result.folder, Sampling(), (), None, Screen(quiet=True))


@pytest.mark.slow
def test_the_shipped_mixture_is_counted_by_source_everywhere(capfd):
    result = alignzoo.run(
        "recipes/mix.yaml", ["reporters=[html]", "train.max_steps=2", "data.max_train_rows=32"], [SMALLEST], quiet=False
    )
    sources = result.summary["data"]["sources"]
    assert {name: counts["train"] for name, counts in sources.items()} == {"dialogues": 24, "tools": 8}
    assert sum(counts["held_out"] for counts in sources.values()) == 32
    for counts in sources.values():
        assert counts["read"] == sum(value for key, value in counts.items() if key != "read")
    assert result.summary["eval"]["n"] == 32
    assert result.summary["eval"]["lists/n"] == 100
    line = "dialogues: 24 training (75.0%) and 27 held-out rows of 5,400 read, 5,349 left out"
    assert f"data: {line}" in " ".join(capfd.readouterr().err.split())
    page = (result.folder / "report.html").read_text()
    assert line in page
    assert "<th>tools</th>" in page
    trees = json.loads((result.folder / "rows.jsonl").read_text().splitlines()[-1])
    assert trees["split"] == "lists"
