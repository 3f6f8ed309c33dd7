"""A finished run is opened where it is, whatever became of its start, its data and the folder of runs."""

from __future__ import annotations

import json
import shutil

import pytest
from click.testing import CliRunner

import alignzoo
from alignzoo.cli import alignzoo as cli
from alignzoo.compare.measure import measure
from alignzoo.compare.spec import Sampling
from alignzoo.core.console import Screen
from alignzoo.core.errors import UserError
from alignzoo.recipe.load import load_recipe
from alignzoo.recipe.resolved import START
from alignzoo.training.needed_runs import folder_of
from alignzoo.training.runs import load_finished, load_recipe_or_run, remove_run

pytestmark = pytest.mark.slow

SMALLEST = "tests/smallest.yaml"
SMALL = ["train.max_steps=2", "data.max_train_rows=32", "eval.replies.num_prompts=0"]
QUIET = Screen(quiet=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of a measured run of DPO, beside its start."""
    root = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALIGNZOO_CACHE", str(root / "cache"))
        patch.setenv("ALIGNZOO_RUNS", str(root / "runs"))
        folder = alignzoo.run("recipes/dpo_hh.yaml", SMALL, [SMALLEST]).folder
        measure(load_recipe(folder), folder, Sampling(prompts=2, tokens=3), (), None, QUIET)
    return root, folder


@pytest.fixture
def moved(made, tmp_path, monkeypatch):
    """A copy of the run and its start in another place, which is not the folder of runs."""
    shutil.copytree(made[0] / "runs", tmp_path / "elsewhere")
    monkeypatch.setenv("ALIGNZOO_CACHE", str(made[0] / "cache"))
    return tmp_path / "elsewhere" / made[1].name


def start_of(folder):
    (start,) = (path for path in folder.parent.iterdir() if path.name.startswith("sft_hh-"))
    return start


def call(*arguments, **options):
    done = CliRunner().invoke(cli, list(map(str, arguments)), **options)
    assert done.exit_code == 0, done.output
    return done.output


def test_a_run_without_its_start_still_replies_and_is_tabled(moved, tmp_path):
    (tmp_path / "p.jsonl").write_text('{"prompt": "\\n\\nHuman: Hello?\\n\\nAssistant:"}\n')
    before = call("table", moved, "--json")
    remove_run(start_of(moved))
    assert load_finished(moved).start is None
    call("generate", moved, tmp_path / "p.jsonl", "-o", tmp_path / "r.jsonl", "--max-new-tokens", "3")
    assert json.loads((tmp_path / "r.jsonl").read_text())["tokens"] <= 3
    assert "you>" in call("chat", moved, "--max-new-tokens", "3", input="Hello?\n")
    after = call("table", moved, "--json")
    assert json.loads(after)["rows"] == json.loads(before)["rows"]
    call("report", moved)
    call("export", moved, "--to", tmp_path / "out")


def test_the_weights_of_a_removed_start_are_missed_with_a_sentence(moved, tmp_path):
    remove_run(start_of(moved))
    done = CliRunner().invoke(cli, ["score", str(moved), "-o", str(tmp_path / "s.jsonl")])
    assert isinstance(done.exception, UserError)
    assert "model.from: the run was removed" in str(done.exception)
    with pytest.raises(UserError, match="no such recipe"):  # of a recipe, it is an error as before
        load_recipe(moved)


def test_a_run_that_was_moved_is_scored_where_it_is(moved, tmp_path):
    found = load_recipe_or_run(str(moved))
    assert folder_of(found).path == moved
    assert folder_of(found.needs[START]).path == start_of(moved).resolve()
    said = call("score", moved, "-o", tmp_path / "s.jsonl", "--split", "held_out")
    assert "32 rows" in said
    assert not (tmp_path / "runs").exists()  # nothing was trained again
    assert load_recipe_or_run(str(moved), ["seed=3"]).folder is None


def test_a_run_that_is_not_finished_is_no_finished_one(moved):
    (moved / "summary.json").unlink()
    with pytest.raises(UserError, match="the run is not finished"):
        load_finished(moved)
    assert load_recipe_or_run(str(moved)).folder is None
