"""`alignzoo plugins new` writes a package that works, and `alignzoo plugins check` says what is wrong with one."""

from __future__ import annotations

import json
import os
import subprocess
from string import Template

import pytest
import yaml
from checkout import ROOT
from jobs import command, python

from alignzoo.cli.plugin_new import write
from alignzoo.core.errors import NotWritten, UserError
from alignzoo.recipe.load import load_recipe
from alignzoo.registry.lookup import registry
from alignzoo.testing import CHECKS, run_checks

FILES = ["README.md", "alignzoo_my_loss.py", "my_loss_hh.yaml", "pyproject.toml", "tests/test_my_loss.py"]
BROKEN = '''
from alignzoo import Objective, hookimpl

class Broken(Objective):
    """A loss with a mean in it."""
    name = "broken"
    source = "nobody 2026"
    equation = "-h"

    def loss(self, pair):
        return -pair.margin.mean()

class Fine(Objective):
    """A loss."""
    name = "fine"
    source = "nobody 2026"
    equation = "-h"

    def loss(self, pair):
        return -pair.margin

@hookimpl
def register_objectives():
    return [Broken, Fine]
'''


UNSET = {"ALIGNZOO_PLUGINS": None, "PYTHONPATH": None}


def cli(*arguments: object, **environment: str) -> subprocess.CompletedProcess:
    return command("plugins", *arguments, **UNSET | environment).wait()


def test_new_writes_a_package_and_says_how_to_go_on(tmp_path):
    done = cli("new", "my_loss", "--into", tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "alignzoo-my-loss"
    written = {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*") if file.is_file()}
    assert sorted(written) == sorted(FILES)
    assert not [name for name, text in written.items() if "$" in text or "TODO" in text]
    assert "pip install -e ." in done.stdout
    assert "alignzoo run dpo_hh --with my_loss_hh.yaml" in done.stdout


@pytest.mark.slow
def test_its_objective_is_found_and_passes_every_check(tmp_path):
    folder = write("my_loss", tmp_path)
    cls = registry().with_files([folder / "alignzoo_my_loss.py"]).find("objective", "my_loss")
    assert set(run_checks(cls()).values()) == {""}


@pytest.mark.slow
def test_its_recipe_is_a_recipe(tmp_path):
    folder = write("my_loss", tmp_path)
    overlay = folder / "my_loss_hh.yaml"
    text = yaml.safe_load(overlay.read_text()) | {"plugins": ["alignzoo_my_loss.py"]}
    overlay.write_text(yaml.safe_dump(text))
    recipe = load_recipe("dpo_hh", overlays=[overlay]).recipe
    assert (recipe.name, recipe.objective.name) == ("my_loss_hh", "my_loss")


@pytest.mark.slow
def test_its_own_tests_pass(tmp_path):
    folder = write("loss", tmp_path)
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    done = python(*words, folder=folder, **UNSET | {"PYTHONPATH": str(ROOT)}).wait()
    assert f"{len(CHECKS) + 3} passed" in done.stdout, done.stdout


@pytest.mark.slow
def test_it_installs_is_found_and_trains_on_the_sample(tmp_path):
    folder, site = write("my_loss", tmp_path), tmp_path / "site"
    quiet = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check"]
    done = python("-m", "pip", "install", *quiet, "--target", site, ".", folder=folder, **UNSET).wait()
    assert done.returncode == 0, done.stderr
    path = f"{site}{os.pathsep}{ROOT}"
    found = UNSET | {"PYTHONPATH": path}
    assert "objective my_loss" in command("list", "plugins", **found).wait().stdout
    for name in ("my_loss", "alignzoo-my-loss"):
        assert f"all {len(CHECKS)} checks passed" in cli("check", name, PYTHONPATH=path).stdout
    done = command("run", "dpo_hh", "--with", "my_loss_hh.yaml", "--json", folder=folder, **found).wait()
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["objective"] == {"name": "my_loss", "beta": 0.1, "offset": 0.5}


def test_a_package_is_there_as_a_whole_or_not_at_all(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotWritten, match=r"alignzoo-my-loss could not be written: (file exists|not a directory)"):
        write("my_loss", tmp_path / "file")
    monkeypatch.setattr(Template, "substitute", lambda *_: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        write("my_loss", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("MyLoss", "is not a name"), ("my-loss", "is not a name"), ("2loss", "is not a name"), ("my__loss", "is not a name"),
        ("loss_", "is not a name"), ("", "is not a name"), ("../up", "is not a name"), ("no", "YAML reads it as False"),
        ("dpo", "is the name of a built-in objective"),
    ],
)  # fmt: skip
def test_a_name_that_can_not_be_used_is_rejected(tmp_path, name, problem):
    with pytest.raises(UserError, match=problem):
        write(name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_there_is_never_written_into(tmp_path):
    write("my_loss", tmp_path)
    done = cli("new", "my_loss", "--into", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "the folder exists" in done.stderr


@pytest.mark.parametrize("name", ["pair", "field", "objective", "hookimpl", "class", "my_loss", "p2p_loss"])
def test_no_name_clashes_with_the_public_api(tmp_path, name):
    folder = write(name, tmp_path)
    known = registry().with_files([folder / f"alignzoo_{name}.py"])
    assert known.find("objective", name).__name__.endswith("Loss")


@pytest.mark.slow
def test_check_prints_a_table_and_exits_with_0():
    done = cli("check", "ipo", "log_ratio=mean")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"all {len(CHECKS)} checks passed" in done.stdout
    assert all(check.__name__ in done.stdout for check in CHECKS)


@pytest.mark.slow
def test_check_says_what_is_wrong_and_exits_with_1(tmp_path):
    file = tmp_path / "broken.py"
    file.write_text(BROKEN)
    done = cli("check", "broken", "--file", file)
    assert (done.returncode, done.stderr[:8]) == (1, "code of ")
    assert done.stderr.count("\n") == 1
    assert "return one loss per example, not their mean" in " ".join(done.stdout.split())
    done = cli("check", "--file", file, "--json")
    found = {one["name"]: one for one in json.loads(done.stdout)}
    assert (done.returncode, sorted(found)) == (1, ["broken", "fine"])
    assert "not their mean" in found["broken"]["checks"]["one_loss_per_example"]
    assert set(found["fine"]["checks"].values()) == {""}


@pytest.mark.slow
def test_check_of_a_package_is_of_everything_that_it_registers():
    done = cli("check", "alignzoo", "--json")
    found = [one["name"] for one in json.loads(done.stdout)]
    assert done.returncode == 0
    assert {"dpo", "sft", "margin on dpo"} <= set(found)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["dop"], "did you mean 'dpo'?"), (["dpo", "betta=1"], "did you mean 'beta'?"),
        (["dpo", "beta=-1"], "greater than 0 (got -1)"), (["dpo", "beta"], "is not an override"), ([], "nothing to check"),
        (["alignzoo", "beta=1"], "ambiguous field"),
    ],
)  # fmt: skip
def test_a_mistake_is_reported_with_exit_code_2(arguments, problem):
    done = cli("check", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert problem in done.stderr
