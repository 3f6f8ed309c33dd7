"""`alignzoo init`: a recipe for a data file and a model, with a comment on every key."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from byte_tokenizer import CHATML, byte_tokenizer
from click.testing import CliRunner
from tiny_inputs import ROWS, make_model

from alignzoo.cli import alignzoo
from alignzoo.core.errors import UserError
from alignzoo.recipe.load import load_recipe
from alignzoo.training.starter import EDITOR, starter

TOOL = {"type": "function", "function": {"name": "add", "description": "Add.", "parameters": {"type": "object"}}}
USER, ANSWER = {"role": "user", "content": "QQ+1?"}, {"role": "assistant", "content": "2"}
SHAPES = {
    "pairs": (ROWS, "dpo", None),
    "renamed": ([{"question": "QQ?", "response_chosen": "a", "response_rejected": "b"}], "dpo",
                {"prompt": "question", "chosen": "response_chosen", "rejected": "response_rejected"}),
    "lists": ([{"prompt": "QQ", "completions": ["a", "b", "c"], "scores": [1, 2, 3]}], "dpo", None),
    "texts": ([{"text": "once upon a QQ"}], "sft", None),
    "alpaca": ([{"instruction": "Add.", "input": "QQ, 1", "output": "2"}], "sft", None),
    "chats": ([{"messages": [USER, ANSWER]}], "sft", None),
    "tools": ([{"messages": [USER, ANSWER], "tools": [TOOL]}], "sft", None),
    "pairs of chats": ([{"prompt": [USER], "chosen": [ANSWER], "rejected": [ANSWER | {"content": "3"}]}], "dpo", None),
    "prompts": ([{"prompt": "QQ+1?"}], "dpo", None),
    "prompts with answers": ([{"prompt": "QQ+1?", "answer": "2"}], "dpo", None),
}  # fmt: skip


@pytest.fixture(scope="module")
def start(tmp_path_factory) -> Path:
    """A model folder, whose tokenizer has a chat template."""
    folder = tmp_path_factory.mktemp("start")
    make_model().save_pretrained(folder)
    byte_tokenizer(template=CHATML).save_pretrained(folder)
    return folder


def write(path: Path, rows: list[dict]) -> str:
    """Rows as JSON lines, with their number in place of QQ."""
    path.write_text("".join(json.dumps(row).replace("QQ", str(n)) + "\n" for n, row in enumerate(rows)))
    return str(path)


def called(*words) -> tuple[int, str]:
    done = CliRunner().invoke(alignzoo, ["init", *map(str, words)])
    if isinstance(done.exception, UserError):
        return 2, str(done.exception)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_gets_a_recipe_that_is_valid(shape, start, tmp_path, no_fork):
    rows, objective, fields = SHAPES[shape]
    data, output = write(tmp_path / "rows.jsonl", rows * 12), tmp_path / "first.yaml"
    code, said = called(data, "--model", start, "-o", output)
    assert (code, f"objective {objective} (proposed)" in said) == (0, True), said
    text = output.read_text()
    assert text.splitlines()[0] == EDITOR
    recipe = load_recipe(output).recipe
    assert (recipe.name, recipe.objective.name) == ("first", objective)
    assert (recipe.rollout is not None) == shape.startswith("prompts")
    assert {key: getattr(recipe.data.format, key) for key in fields or ()} == (fields or {})
    checked = CliRunner().invoke(alignzoo, ["validate", str(output)])
    assert checked.exit_code == 0, checked.exception


def test_every_key_has_its_description(start, tmp_path, no_fork):
    text = starter(write(tmp_path / "rows.jsonl", ROWS), str(start), tmp_path).text
    lines = [line for line in text.splitlines()[2:] if line]
    assert not [line for line in lines if "  # " not in line or line.endswith("# ")]
    assert "  batch_size: 3  # rows per optimizer step, summed over processes" in lines
    assert "  path: ./rows.jsonl" in text
    assert yaml.safe_load(text)["train"]["optimizer"]["learning_rate"] == 1e-6


def test_lengths_are_those_of_the_rows(start, tmp_path, no_fork):
    rows = [{"prompt": "p" * 70, "chosen": "c" * 20, "rejected": "r"}] * 12
    found = yaml.safe_load(starter(write(tmp_path / "a.jsonl", rows), str(start), tmp_path).text)
    assert (found["tokens"]["max_length"], found["tokens"]["max_prompt_length"]) == (128, 64)
    long = [{"prompt": "p" * 300, "chosen": "c" * 20, "rejected": "r"}] * 12
    text = starter(write(tmp_path / "b.jsonl", long), str(start), tmp_path).text
    assert yaml.safe_load(text)["tokens"]["max_length"] == 128  # the model's positions
    assert "of the first 12 rows the longest has 321 tokens" in text


def test_a_tokenizer_without_a_template_gets_one(tmp_path, no_fork):
    make_model().save_pretrained(tmp_path / "m")
    byte_tokenizer().save_pretrained(tmp_path / "m")
    data = write(tmp_path / "rows.jsonl", [{"messages": [USER, ANSWER]}] * 12)
    code, said = called(data, "--model", tmp_path / "m", "-o", tmp_path / "r.yaml")
    assert (code, "chatml is proposed" in said) == (0, True), said
    assert load_recipe(tmp_path / "r.yaml").recipe.model.chat_template == "chatml"


def test_a_hub_id_without_the_hub_has_the_usual_lengths(tmp_path):
    found = starter(write(tmp_path / "rows.jsonl", ROWS), "org/no-such-model", tmp_path)
    assert "lengths are not measured" in found.notes[1]
    plain = yaml.safe_load(found.text)
    assert (plain["model"]["path"], plain["tokens"]["max_length"]) == ("org/no-such-model", 1024)


def test_rows_that_no_run_can_use_are_left_out(start, tmp_path, no_fork):
    rows = [ROWS[0] | {"chosen": "half an emoji \ud83d"}, *ROWS]
    found = starter(write(tmp_path / "rows.jsonl", rows), str(start), tmp_path)
    assert found.notes[0].startswith(f"{len(ROWS)} rows: pairs")


def test_rows_of_one_prompt_hold_nothing_out(start, tmp_path, no_fork):
    rows = [{"prompt": "q", "chosen": "a", "rejected": "b"}] * 12
    code, said = called(write(tmp_path / "rows.jsonl", rows), "--model", start, "-o", tmp_path / "r.yaml")
    assert code == 0, said
    assert CliRunner().invoke(alignzoo, ["validate", str(tmp_path / "r.yaml")]).exit_code == 0


def test_what_it_can_not_do_is_said(start, tmp_path, no_fork):
    data, output = write(tmp_path / "rows.jsonl", ROWS), tmp_path / "r.yaml"
    cases = [
        ((tmp_path / "row.jsonl", "--model", start), "did you mean 'rows.jsonl'"),
        ((data, "--model", tmp_path / "modle"), "no such folder"),
        ((data, "--model", start, "--objective", "dpi"), "did you mean"),
        ((data, "--model", start, "-o", data), "the file exists"),
        ((data, "--model", start, "-o", data, "--force"), "the data would be replaced"),
        ((data, "--model", "a b/c:d"), "no folder, and no hub id"),
        ((data, "--model", ""), "no folder, and no hub id"),
        ((write(tmp_path / "odd.jsonl", [{"foo": 1}]), "--model", start), "the columns foo are no row"),
        ((write(tmp_path / "labels.jsonl", [{"prompt": "q", "completion": "a", "label": True}]), "--model", start),
         "no objective is called 'kto'"),
    ]  # fmt: skip
    for words, expected in cases:
        code, said = called(*words, *([] if "-o" in words else ["-o", output]))
        assert (code, expected in said) == (2, True), (expected, said)
    assert not output.exists()
    assert called(data, "--model", start, "-o", output)[0] == 0
    assert called(data, "--model", start, "-o", output, "--force", "--objective", "ipo")[0] == 0
    assert load_recipe(output).recipe.objective.name == "ipo"
