"""Whose code runs: installed packages' and files that a recipe names, said aloud; `--no-plugins` switches both off."""

from __future__ import annotations

import importlib.util
import os
import py_compile
import subprocess
import sys
from hashlib import blake2b

import pytest
from checkout import ROOT

from alignzoo.cli.app import _exit_code
from alignzoo.core import console
from alignzoo.core.errors import UserError
from alignzoo.recipe.load import load_recipe
from alignzoo.registry.lookup import registry

PLUGIN = '''
from pathlib import Path
from alignzoo import Objective, hookimpl
Path(r"{marker}").write_text("ran")

class Mine(Objective):
    """A loss for a test."""
    name = "mine"
    source = "nobody 2026"
    equation = "-h"

    def loss(self, pair):
        return -pair.margin

@hookimpl
def register_objectives():
    return [Mine]
'''


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """A recipe that names a plugin file, which leaves a marker when it runs."""
    monkeypatch.setattr(console, "_warned", set())
    (tmp_path / "mine.py").write_text(PLUGIN.format(marker=tmp_path / "ran"))
    path = tmp_path / "mine.yaml"
    path.write_text("extends: dpo_hh\nplugins: [./mine.py]\nobjective: mine\n")
    return path


def cli(monkeypatch, *words, **environment):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["alignzoo", *map(str, words)])
    registry.cache_clear()
    try:
        return _exit_code()
    finally:
        registry.cache_clear()


def test_the_file_and_its_digest_are_said_before_it_runs(recipe, capsys, tmp_path):
    for _ in range(2):
        load_recipe(recipe)
    digest = blake2b((tmp_path / "mine.py").read_bytes(), digest_size=16).hexdigest()
    line = f"code of {tmp_path / 'mine.py'} is run (blake2b {digest})\n"
    assert capsys.readouterr().err == line


def test_a_base_an_overlay_and_a_start_say_it_too(recipe, capsys, tmp_path):
    (tmp_path / "child.yaml").write_text("extends: mine.yaml")
    load_recipe(tmp_path / "child.yaml")
    assert "mine.py is run" in capsys.readouterr().err
    console._warned.clear()
    (tmp_path / "over.yaml").write_text("plugins: [./mine.py]")
    load_recipe("dpo_hh", [], [tmp_path / "over.yaml"])
    assert "mine.py is run" in capsys.readouterr().err
    console._warned.clear()
    (tmp_path / "after.yaml").write_text("extends: dpo_hh\nmodel: {from: mine.yaml}")
    load_recipe(tmp_path / "after.yaml")
    assert "mine.py is run" in capsys.readouterr().err


def test_a_file_that_fails_was_said_before(recipe, capsys, tmp_path):
    (tmp_path / "mine.py").write_text("raise SystemExit('gone')")
    with pytest.raises(UserError, match="SystemExit on import: gone"):
        load_recipe(recipe)
    assert "mine.py is run" in capsys.readouterr().err


def test_what_was_hashed_is_run_and_no_compiled_file_beside_it(recipe, tmp_path):
    """Python would take an unchecked .pyc in __pycache__ for the source, whatever the source says."""
    evil = tmp_path / "evil.py"
    evil.write_text(f"open({str(tmp_path / 'evil')!r}, 'w').close()\n" + (tmp_path / "mine.py").read_text())
    target = importlib.util.cache_from_source(str(tmp_path / "mine.py"))
    py_compile.compile(str(evil), target, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    load_recipe(recipe)
    assert (tmp_path / "ran").exists()
    assert not (tmp_path / "evil").exists()


def test_no_plugins_runs_no_file_of_a_recipe(recipe, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("ALIGNZOO_PLUGINS", "")  # put back afterwards: the switch sets it
    assert cli(monkeypatch, "--no-plugins", "show", recipe) == 2
    said = capsys.readouterr().err
    assert (
        f"error: {tmp_path / 'mine.py'}: plugins are switched off (--no-plugins), and the recipe names this one" in said
    )
    assert not (tmp_path / "ran").exists()
    assert os.environ["ALIGNZOO_PLUGINS"] == "none"


def test_no_plugins_runs_no_installed_one(tmp_path, monkeypatch, capsys):
    site = tmp_path / "site"
    info = site / "alignzoo_evil-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "evil_module.py").write_text(PLUGIN.format(marker=tmp_path / "ran"))
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: alignzoo-evil\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[alignzoo]\nevil = evil_module\n")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("ALIGNZOO_PLUGINS", "")
    assert cli(monkeypatch, "--no-plugins", "list") == 0
    assert cli(monkeypatch, "--no-plugins", "show", "dpo_hh", "objective=mine") == 2
    assert "alignzoo-evil was not loaded: left out by ALIGNZOO_PLUGINS" in capsys.readouterr().err
    assert not (tmp_path / "ran").exists()
    monkeypatch.delenv("ALIGNZOO_PLUGINS")
    assert cli(monkeypatch, "list", "objectives") == 0
    assert (tmp_path / "ran").exists()  # the test can fail
    sys.modules.pop("evil_module", None)


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [["--no-plugins", "run", "dpo_hh", "--dry-run"], ["--no-plugins", "list", "objectives"]]
)
def test_what_is_built_in_works_with_it(words, monkeypatch):
    monkeypatch.setenv("ALIGNZOO_PLUGINS", "")
    assert cli(monkeypatch, *words) == 0


@pytest.mark.slow
def test_a_package_that_only_lies_in_the_working_directory_is_not_installed(tmp_path):
    """`python -m` puts the working directory first on the path; a download there must not be taken for a plugin."""
    info = tmp_path / "alignzoo_evil-1.0.dist-info"
    info.mkdir()
    (tmp_path / "evil_module.py").write_text(PLUGIN.format(marker=tmp_path / "ran"))
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: alignzoo-evil\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[alignzoo]\nevil = evil_module\n")
    (tmp_path / "yaml.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()")
    environment = {key: value for key, value in os.environ.items() if key != "ALIGNZOO_PLUGINS"} | {
        "PYTHONPATH": str(ROOT)
    }
    for module in ("alignzoo", "alignzoo.cli"):
        done = subprocess.run(
            [sys.executable, "-m", module, "list"], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert "mine" not in done.stdout
    assert not (tmp_path / "ran").exists()
