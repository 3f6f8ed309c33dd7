"""The runs there are: listed, told apart, and removed only where they are ours."""

from __future__ import annotations

import json
import os

import pytest
from click.testing import CliRunner
from other_user import as_another_user, shared_folder

from alignzoo.cli import alignzoo
from alignzoo.core.errors import UserError
from alignzoo.core.paths import runs_root
from alignzoo.recipe.load import load_recipe
from alignzoo.training.needed_runs import folder_of
from alignzoo.training.run_diff import diff_runs
from alignzoo.training.run_folder import RunFolder
from alignzoo.training.runs import describe_run, find_run, needed_by, remove_run, run_folders

STEPS = [
    {"kind": "eval", "step": 0, "loss": 0.7, "preference_accuracy": 0.5},
    {"kind": "train", "step": 1, "loss": 0.6}, {"kind": "train", "step": 2, "loss": 0.5},
    {"kind": "eval", "step": 2, "loss": 0.5, "preference_accuracy": 0.75},
]  # fmt: skip


def make(*overrides: str, lines=STEPS, finished: bool = True, **data):
    """A run folder as `alignzoo run` leaves it, without weights."""
    resolved = load_recipe("dpo_hh", overrides)
    folder = folder_of(resolved).path
    folder.mkdir(parents=True)
    start = folder_of(resolved.start).path.name
    (folder / "recipe.yaml").write_text(resolved.to_yaml({"model.from": f"../{start}/recipe.yaml"}))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "data.json").write_text(json.dumps({"train": 10, "held_out": 2, "lengths": [1, 2], **data}))
    if finished:
        summary = {"finished": True, "name": resolved.recipe.name, "fingerprint": resolved.fingerprint,
                   "train": {"steps": 2, "pairs": 8, "seconds": 1.0, "pairs_per_second": 8.0},
                   "peak_memory_bytes": 1, "versions": {}, "eval": {"preference_accuracy": 0.75}}  # fmt: skip
        (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def cli(*arguments: str, **options):
    return CliRunner().invoke(alignzoo, ["runs", *arguments], **options)


def test_a_run_is_described_by_its_files():
    folder = make()
    os.utime(folder / "recipe.yaml", (1, 1))
    found = describe_run(folder)
    assert (found.name, found.state, found.objective, found.data, found.accuracy) == (
        folder.name, "finished", "dpo", "hh:toy", 0.75,
    )  # fmt: skip
    assert found.when == (folder / "summary.json").stat().st_mtime
    stopped = describe_run(make("seed=1", lines=STEPS[:2], finished=False))
    assert (stopped.state, stopped.accuracy) == ("step 1", 0.5)
    (folder / "summary.json").write_text("{")
    assert describe_run(folder).state.startswith("damaged: ")


def test_the_list_has_every_run_and_nothing_else():
    assert "no run in" in cli().output
    folder, other = make(), make("seed=1", "objective=ipo")
    (runs_root() / "notes").mkdir()
    (runs_root() / "linked-12345678").symlink_to(folder, target_is_directory=True)
    assert {path.name for path in run_folders(runs_root())} == {folder.name, other.name}
    found = json.loads(cli("--json").output)
    assert {entry["name"] for entry in found} == {folder.name, other.name}
    assert {entry["objective"] for entry in found} == {"dpo", "ipo"}
    assert "ACCURACY" in cli().output


def test_a_run_is_found_by_folder_name_and_recipe(tmp_path):
    with pytest.raises(UserError, match="this recipe has no run yet"):
        find_run("dpo_hh")
    folder = make()
    assert find_run(folder) == find_run(folder.name) == find_run("dpo_hh") == folder
    with pytest.raises(UserError, match="no such run") as error:
        find_run(f"{folder.name[:-1]}x")
    assert error.value.problems[0].nearest == folder.name
    with pytest.raises(UserError, match="not a run folder"):
        find_run(tmp_path)


def test_the_difference_of_two_runs():
    lines = [*STEPS[:2], {"kind": "train", "step": 2, "loss": 0.4}, {**STEPS[3], "loss": 0.45}]
    a, b = make(), make("objective.beta=0.2", "seed=3", lines=lines, held_out=3)
    found = diff_runs(a, b)
    assert ("objective.beta", 0.1, 0.2) in found["recipe"]
    assert ("seed", 0, 3) in found["recipe"]
    assert {key for key, *_ in found["recipe"]} == {"objective.beta", "seed"}
    assert found["data"] == [("held_out", 2, 3)]
    assert found["curves"] == [("eval 2: loss", 0.5, 0.45), ("train 2: loss", 0.5, 0.4)]
    assert found["first"] == {"step": 2, "kind": "eval", "figures": [("loss", 0.5, 0.45)]} or found["first"] == {
        "step": 2, "kind": "train", "figures": [("loss", 0.5, 0.4)],
    }  # fmt: skip
    assert found["steps"] == [2, 2]
    printed = cli("diff", a.name, str(b)).output
    for words in ("objective.beta", "held_out", "eval 2: loss", "the first record that differs"):
        assert words in printed


def test_a_run_that_goes_on_differs_from_a_stopped_one_in_no_common_step():
    found = diff_runs(make(), make("seed=1", lines=STEPS[:2], finished=False))
    assert (found["first"], found["curves"]) == (None, [])
    assert found["steps"] == [2, 1]


def test_what_is_odd_in_one_run_does_not_end_the_list():
    odd, huge = (
        make(),
        make("seed=1", lines=[{"kind": "eval", "step": 1, "preference_accuracy": 10**400}], finished=False),
    )
    (odd / "recipe.yaml").write_text("name: dpo_hh\nobjective: {name: dpo, modifiers: 5}\n")
    assert describe_run(odd).objective == "dpo with 5"
    assert describe_run(huge).accuracy is None
    assert cli().exit_code == 0


def test_a_folder_of_runs_that_may_not_be_read():
    with shared_folder() as root:
        (root / "closed").mkdir(mode=0o700)
        (root / "closed-12345678").mkdir()
        (root / "closed-12345678" / "recipe.yaml").write_text("name: closed")
        (root / "closed-12345678").chmod(0o700)
        assert as_another_user(lambda: run_folders(root)) == []
        assert as_another_user(lambda: run_folders(root / "closed")) == [
            "UserError", f"{root / 'closed'}: the folder of runs can't be read; expected a folder that you may read",
        ]  # fmt: skip
        kind, said = as_another_user(lambda: find_run(root / "closed" / "x"))
        assert kind == "UserError"
        assert "can't be read" in said or "no such run" in said


def test_removal_names_the_runs_that_read_its_weights_by_path():
    folder = make()
    user = make("seed=1")
    recipe = user / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("path: null", f"path: {folder / 'policy'}", 1))
    assert needed_by(folder) == [user.name]
    assert needed_by(user) == []


def test_removal_without_an_answer_is_a_sentence():
    folder = make()
    done = cli("rm", folder.name, input="")
    assert isinstance(done.exception, UserError)
    assert "--yes" in str(done.exception)
    assert folder.is_dir()
    assert cli("rm", "--yes", folder.name, str(folder), os.path.relpath(folder)).exit_code == 0


def test_removal_asks_and_says_which_runs_need_it():
    folder = make()
    start = runs_root() / folder_of(load_recipe("dpo_hh").start).path.name
    start.mkdir()
    (start / "recipe.yaml").write_text(load_recipe("dpo_hh").start.to_yaml({}))
    assert needed_by(start) == [folder.name]
    assert needed_by(folder) == []
    kept = cli("rm", start.name, input="n\n")
    assert "kept" in kept.output
    assert start.is_dir()
    assert "removed" in cli("rm", "--yes", start.name, str(folder)).output
    assert not start.exists()
    assert not folder.exists()


@pytest.mark.parametrize("kind", ["another folder", "no fingerprint", "another name", "a link"])
def test_nothing_else_is_removed(tmp_path, kind):
    folder = make()
    if kind == "another folder":
        folder = runs_root() / "dpo_hh-12345678"
        folder.mkdir()
        (folder / "thesis.tex").write_text("years of work")
    elif kind == "no fingerprint":
        folder = folder.rename(runs_root() / "dpo_hh")
    elif kind == "another name":
        folder = folder.rename(runs_root() / "mine-12345678")
    else:
        folder.rename(tmp_path / "elsewhere")
        folder.symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    before = sorted(folder.iterdir())
    with pytest.raises(UserError):
        remove_run(folder)
    assert cli("rm", "--yes", str(folder)).exit_code
    assert sorted(folder.iterdir()) == before


def test_a_run_that_a_process_works_on_is_kept():
    folder = make(finished=False)
    with RunFolder(folder).held(), pytest.raises(UserError, match="this run is trained by process"):
        remove_run(folder)
    assert (folder / "metrics.jsonl").is_file()
