"""What a recipe says decides nothing about where files are written, and nothing outside of the roots is removed."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

import alignzoo
from alignzoo.cli.app import alignzoo as cli
from alignzoo.compare.spec import Comparison
from alignzoo.core.errors import UserError
from alignzoo.recipe.load import load_recipe
from alignzoo.training.needed_runs import folder_of
from alignzoo.training.run_folder import RunFolder

NAMES = [
    "..",
    "../x",
    "a/b",
    "/etc/x",
    "",
    ".hidden",
    "a\x00b",
    "a\nb",
    "a b",
    "~",
    "x" * 101,
    "ä",
    "..\\x",
    "CON/../x",
    "a:b\n",
]
TINY = [
    "train.max_steps=1",
    "data.max_train_rows=32",
    "data.held_out_rows=8",
    "eval.replies.num_prompts=1",
    "eval.replies.max_new_tokens=2",
]


@pytest.mark.parametrize("name", NAMES)
def test_no_name_leads_out_of_the_root(name, tmp_path):
    with pytest.raises(UserError, match="name"):
        load_recipe("sft_hh", {"name": name})
    with pytest.raises(ValueError, match="name"):
        Comparison(name=name, recipes=("sft_hh",))


@pytest.mark.parametrize("file", ["..yaml", "a b.yaml", "-rf.yaml", "a;b.yaml"])
def test_neither_does_a_files_name(file, tmp_path):
    (tmp_path / file).write_text("extends: sft_hh")
    with pytest.raises(UserError, match="name"):
        load_recipe(tmp_path / file)


def test_every_run_folder_lies_in_the_root(tmp_path):
    for name in ("a", "a..b", "a-.._", "x" * 100):
        path = folder_of(load_recipe("sft_hh", {"name": name})).path
        assert path.resolve().parent == (tmp_path / "runs").resolve()


def test_what_rows_are_called_names_no_file(tmp_path):
    rows = [
        f'{{"id": "../../{n}", "prompt": "p{n}", "chosen": "good {n}", "rejected": "../bad {n}"}}' for n in range(40)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    before = {path for path in tmp_path.parent.iterdir()}
    data = f"data={{name: files, path: {tmp_path / 'rows.jsonl'}, format: {{name: records, id: id}}}}"
    done = alignzoo.run("sft_hh", [data, "train.max_steps=1"], ["tests/smallest.yaml"])
    assert {path.name for path in tmp_path.iterdir()} == {"rows.jsonl", "runs", "cache"}
    assert {path for path in tmp_path.parent.iterdir()} == before
    assert done.folder.resolve().is_relative_to(tmp_path / "runs")


def test_a_run_folder_that_is_a_link_is_not_written_through(tmp_path):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years")
    folder = folder_of(load_recipe("sft_hh", TINY, ["tests/smallest.yaml"])).path
    folder.parent.mkdir()
    folder.symlink_to(precious)
    for fresh in (False, True):
        with pytest.raises(UserError, match="the run folder is a symbolic link"):
            alignzoo.run("sft_hh", TINY, ["tests/smallest.yaml"], fresh=fresh)
    assert [path.name for path in precious.iterdir()] == ["thesis.txt"]


def test_fresh_removes_a_link_and_not_what_it_leads_to(tmp_path):
    from alignzoo.training.run import clear

    precious, folder = tmp_path / "precious", tmp_path / "runs" / "a-1"
    precious.mkdir()
    folder.mkdir(parents=True)
    (precious / "thesis.txt").write_text("years")
    (folder / "policy").symlink_to(precious)
    clear(RunFolder(folder))
    assert not any(folder.iterdir())
    assert (precious / "thesis.txt").exists()


@pytest.mark.parametrize("options", [["--all"], ["--older-than", "0"], []])
def test_prune_removes_nothing_outside_of_the_cache(options, tmp_path):
    """Links in every place where prune looks, to folders with names that it would take."""
    precious, cache = tmp_path / "precious", tmp_path / "cache"
    for name in ("one", "two", ".x.tmp", ".y.damaged"):
        (precious / name).mkdir(parents=True)
        (precious / name / "thesis.safetensors").write_text("not a shard")
        (precious / name / "old.damaged").write_text("years")
        (precious / name / ".left.tmp").write_text("years")
    (cache / "reference").mkdir(parents=True)
    (cache / "tokens").mkdir()
    (cache / "reference" / "abc").symlink_to(precious / "one")
    (cache / "tokens" / "abc").symlink_to(precious / "two")
    (cache / "tokens" / ".x.tmp").symlink_to(precious / ".x.tmp")
    (cache / "tokens" / ".y.damaged").symlink_to(precious / ".y.damaged")
    (cache / "reference" / "own").mkdir()
    (cache / "reference" / "own" / "old.damaged").write_text("bytes")
    (cache / "reference" / "own" / "link.damaged").symlink_to(precious / "one" / "old.damaged")
    files = sorted(path for path in precious.rglob("*"))
    done = CliRunner().invoke(cli, ["cache", "prune", *options])
    assert done.exit_code == 0, done.output
    assert sorted(path for path in precious.rglob("*")) == files
    assert "is outside the cache" in done.stderr
    assert not (cache / "reference" / "own" / "old.damaged").exists()


def test_a_linked_root_is_a_root(tmp_path, monkeypatch):
    """A cache on another disk: the user has said so."""
    disk = tmp_path / "disk"
    (disk / "tokens" / "abc").mkdir(parents=True)
    (tmp_path / "link").symlink_to(disk)
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "link"))
    assert CliRunner().invoke(cli, ["cache", "prune", "--all"]).exit_code == 0
    assert list((disk / "tokens").iterdir()) == []


def test_a_checkpoint_that_names_files_elsewhere_is_read_and_nothing_more(tmp_path):
    from alignzoo.training import checkpoint

    (tmp_path / "secret").write_text("x")
    folder = tmp_path / "checkpoints" / "step-000001"
    folder.mkdir(parents=True)
    (folder / "state.json").write_text('{"step": 1, "files": {"../../secret": "00", "/etc/hostname": "00"}}')
    good, damaged = checkpoint.latest(folder.parent)
    assert (good, damaged) == (None, [folder])
    assert Path(tmp_path / "secret").read_text() == "x"


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "a/b", "..", "a b", "__import__"])
def test_a_new_plugin_has_a_plain_name(name, tmp_path):
    done = CliRunner().invoke(cli, ["plugins", "new", name, "--into", str(tmp_path)])
    assert isinstance(done.exception, UserError)
    assert list(tmp_path.iterdir()) == []
