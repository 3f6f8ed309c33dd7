"""A run folder that somebody sent, copied together or filled by halves: a sentence, nothing lost, nothing of others touched."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from jobs import bytes_of, run_folder
from other_user import as_another_user, shared_folder

import alignzoo
from alignzoo.cli.app import alignzoo as cli
from alignzoo.core.digests import digest
from alignzoo.core.door import BadFile
from alignzoo.core.errors import NotWritten, UserError
from alignzoo.core.paths import ABOUT
from alignzoo.training import checkpoint
from alignzoo.training.run_folder import RunFolder

SMALLEST = "tests/smallest.yaml"


@pytest.fixture
def world(finished, tmp_path):
    """A finished run in this test's own copy."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    folder = run_folder(tmp_path)
    for path in (folder / "checkpoints").iterdir():  # but its last one
        if path.name != "step-000008":
            shutil.rmtree(path)
    return folder


def unfinished(folder: Path) -> Path:
    """As a process that was killed after the checkpoint leaves it."""
    (folder / "summary.json").unlink()
    return folder


def run(*overrides, **options):
    return alignzoo.run("recipes/dpo_hh.yaml", list(overrides), [SMALLEST], **options)


def rewritten(folder: Path, **values) -> None:
    """Change about.json and its own digest, as someone does who knows the format."""
    about = json.loads((folder / ABOUT).read_text()) | values
    about.pop("digest")
    (folder / ABOUT).write_text(json.dumps(about | {"digest": digest(about)}))


@pytest.fixture
def precious(tmp_path):
    folder = tmp_path / "precious"
    (folder / "step-000001").mkdir(parents=True)
    (folder / ".step-000009.tmp").mkdir()
    (folder / "step-000001" / "thesis.txt").write_text("years")
    yield folder
    assert [path.name for path in sorted(folder.iterdir())] == [".step-000009.tmp", "step-000001"]
    assert (folder / "step-000001" / "thesis.txt").read_text() == "years"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["checkpoints", "policy", "metrics.jsonl", "evaluations", ".lock"])
def test_nothing_is_written_or_removed_through_a_link(world, precious, name):
    want = bytes_of(world)
    unfinished(world)
    target = precious / "step-000001" / "thesis.txt" if "." in name else precious
    part = world / name
    shutil.rmtree(part) if part.is_dir() else part.unlink(missing_ok=True)
    part.symlink_to(target)
    with pytest.raises(UserError, match=f"{name}: this part of the run folder is a symbolic link"):
        run()
    assert part.is_symlink()
    if name == "checkpoints":
        run(fresh=True)
        assert bytes_of(world) == want


@pytest.mark.slow
def test_a_checkpoint_of_another_recipe_is_not_resumed_from(world):
    want = bytes_of(world)
    other = run("objective.beta=0.5").folder
    shutil.rmtree(unfinished(world) / "checkpoints")
    shutil.copytree(other / "checkpoints", world / "checkpoints")
    with pytest.raises(UserError, match=r"step-000008: this checkpoint belongs to run .*and this is run"):
        run()
    assert (world / "checkpoints" / "step-000008").is_dir()  # which someone put there
    run(fresh=True)
    assert bytes_of(world) == want


@pytest.mark.parametrize(
    "values",
    [{"step": -5}, {"step": "4"}, {"step": 4.0}, {"step": 10**9}, {"step": True}, {"objective": 3}, {"objective": [{"a": "x"}]},
     {"budget": None}, {"run": 7}, {"files": []}, {"files": {}}, {"files": {"../../../recipe.yaml": "0" * 32}}, {"files": {"config.json": 7}}],
)  # fmt: skip
def test_a_manifest_of_another_form_is_damaged(world, values):
    step = world / "checkpoints" / "step-000008"
    rewritten(step, **values)
    assert checkpoint.latest(world / "checkpoints") == (None, [step])


@pytest.mark.parametrize("what", ["device", "folder", "pipe", "list", "number", "empty", "deep", "huge", "gone"])
def test_a_manifest_that_is_none_is_damaged(world, what):
    step = world / "checkpoints" / "step-000008"
    about = step / ABOUT
    about.unlink()
    if what == "device":
        about.symlink_to("/dev/zero")
    elif what == "folder":
        about.mkdir()
    elif what == "pipe":
        os.mkfifo(about)
    elif what != "gone":
        with open(about, "wb") as file:
            file.write({"list": b"[]", "number": b"7", "deep": b"[" * 100_000}.get(what, b""))
            file.truncate(10**10 if what == "huge" else file.tell())
    assert checkpoint.latest(world / "checkpoints") == (None, [step])


def test_a_file_that_the_manifest_lacks_is_damage(world):
    """Every file whose name begins with `model` would be loaded."""
    step = world / "checkpoints" / "step-000008"
    shutil.copyfile(step / "model.safetensors", step / "model-2.safetensors")
    assert checkpoint.latest(step.parent)[0] is None


def test_a_checkpoint_that_forges_a_later_step_is_refused(world):
    step = unfinished(world) / "checkpoints" / "step-000008"
    rewritten(step, step=10**6)
    step.rename(step.with_name("step-1000000"))
    with pytest.raises(UserError, match=r"the checkpoint doesn't fit the run.*\n.*--fresh"):
        run()


@pytest.mark.parametrize("text", ["{", "[]", "7", '{"finished": true}', '{"finished": 1}', "[" * 10**5, "NaN", None])
@pytest.mark.slow
def test_a_summary_that_is_none(world, text):
    path = world / "summary.json"
    if text is None:
        path.unlink()
        path.mkdir()
    else:
        path.write_text(text)
    with pytest.raises(BadFile, match=r"summary\.json") as error:
        run()
    assert "--fresh removes the run and starts again" in str(error.value)
    for words in (["report", str(world)], ["export", str(world)], ["table", str(world)]):
        done = CliRunner().invoke(cli, words)
        assert isinstance(done.exception, UserError), words
        assert "summary.json" in str(done.exception)


def test_a_summary_that_lacks_a_figure_of_the_table(world):
    path = world / "summary.json"
    summary = json.loads(path.read_text())
    del summary["layout"]["used"]
    path.write_text(json.dumps(summary))
    for words in (["run", "recipes/dpo_hh.yaml", "--with", SMALLEST], ["report", str(world)]):
        done = CliRunner().invoke(cli, words)
        assert isinstance(done.exception, BadFile), words
        assert "KeyError: 'used'" in str(done.exception)


@pytest.mark.parametrize(
    ("name", "text"),
    [("metrics.jsonl", "{}\n"), ("metrics.jsonl", "[]\n"), ("metrics.jsonl", '{"kind": "eval", "step": -5}\n'), ("metrics.jsonl", "{\n"),
     ("metrics.jsonl", '{"kind": "train", "step": 1, "loss": "x"}\n'), ("samples.jsonl", '{"id": 3}\n'), ("samples.jsonl", "7\n"),
     ("held_out.jsonl", '{"id": "1", "margin": "x"}\n'), ("held_out.jsonl", '{"id": "1", "gradient_weight": -1}\n'), ("data.json", '{"overlap": 3}'),
     ("data.json", "[]"), ("data.json", '{"read": "x"}'), ("recipe.yaml", "a: &a [*a]"), ("recipe.yaml", "\xff"), ("timings.jsonl", "x\n")],
)  # fmt: skip
@pytest.mark.slow
def test_records_of_another_form_are_a_sentence(world, name, text):
    (world / name).write_text(text, encoding="latin-1")
    for command in ("export",) if name == "recipe.yaml" else ("report", "table"):
        words = [command, str(world)]
        done = CliRunner().invoke(cli, words)
        assert done.exception is None or isinstance(done.exception, UserError), (words, done.exception)


def test_runs_that_cannot_be_written(world, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        monkeypatch.setenv("ALIGNZOO_RUNS", str(place))
        done = CliRunner().invoke(cli, ["compare", "recipes/dpo_hh.yaml", "--with", SMALLEST, "--seeds", "1"])
        assert isinstance(done.exception, NotWritten), done.exception
        assert "set ALIGNZOO_RUNS to another folder" in str(done.exception)


def test_a_folder_of_another_user_is_not_damaged(world):
    with shared_folder() as place:
        folder = Path(shutil.copytree(world / "checkpoints", place / "checkpoints"))
        folder.chmod(0o777)
        about = folder / "step-000008" / ABOUT
        about.chmod(0)
        kind, said = as_another_user(lambda: checkpoint.latest(folder)[0].step)
        assert (kind, "permission denied" in said) == ("UnreadableFile", True)
        assert [path.name for path in folder.iterdir()] == ["step-000008"]
        about.chmod(0o644)
        assert as_another_user(lambda: checkpoint.latest(folder)[0].step) == 8


def test_files_have_the_rights_of_other_new_files(world, tmp_path):
    """A library makes some of them for their owner alone, and a cache is there to be shared."""
    (tmp_path / "new").touch()
    usual = (tmp_path / "new").stat().st_mode
    files = [
        path for path in tmp_path.rglob("*") if path.is_file() and path.suffix in (".safetensors", ".json", ".jsonl")
    ]
    assert {"reference", "tokens", "checkpoints", "policy"} <= {part for path in files for part in path.parts}
    assert [path for path in files if path.stat().st_mode != usual] == []


def test_temporary_files_of_living_processes_stay(tmp_path):
    from alignzoo.core.files import temporary_path

    folder = RunFolder(tmp_path)
    mine = temporary_path(tmp_path / "report.html")
    dead = mine.with_name(mine.name.replace(f".{os.getpid()}-", ".999999999-"))
    for path in (mine, dead):
        path.touch()
    with folder.held():
        assert mine.exists()
        assert not dead.exists()
