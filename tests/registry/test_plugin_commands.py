"""What the command line says of plugins: once, on stderr, and only where they were looked at."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from jobs import command

BROKEN = "import nonexistent_library"
REQUIRED = '''
from alignzoo import Field, Objective, hookimpl

class Mine(Objective):
    """A loss for a test."""
    name = "mine"
    source = "nobody 2026"
    equation = "-beta h"
    beta: float = Field(gt=0, description="strength")
    cut: float | None = Field(None, ge=1, description="where to stop")

    def loss(self, pair):
        return -self.beta * pair.margin

@hookimpl
def register_objectives():
    return [Mine]
'''
WARNING = "warning: not loaded: alignzoo-broken (alignzoo list plugins shows why)\n"


@pytest.fixture
def site(tmp_path):
    """A folder with one plugin that works and one that does not."""
    site = tmp_path / "site"
    for package, code in (("broken", BROKEN), ("mine", REQUIRED)):
        info = site / f"alignzoo_{package}-1.0.dist-info"
        info.mkdir(parents=True)
        (site / f"az_{package}.py").write_text(code)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: alignzoo-{package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[alignzoo]\nplugin = az_{package}\n")
    return site


def cli(site, *arguments, **environment) -> subprocess.CompletedProcess:
    return command(*arguments, **{"ALIGNZOO_PLUGINS": None, "PYTHONPATH": str(site)} | environment).wait()


@pytest.mark.slow
def test_list_plugins_has_all_and_exits_with_0(site):
    done = cli(site, "list", "plugins", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    broken, mine = json.loads(done.stdout)
    assert broken["problem"] == "ModuleNotFoundError on import: No module named 'nonexistent_library'"
    assert (mine["package"], mine["version"], mine["offers"]) == ("alignzoo-mine", "1.0", {"objective": ["mine"]})
    text = cli(site, "list", "plugins").stdout
    assert "not loaded" in text
    assert "objective mine" in text


@pytest.mark.slow
def test_switched_off_is_not_the_same_as_not_installed(site):
    text = cli(site, "list", "plugins", ALIGNZOO_PLUGINS="").stdout
    assert text.count("left out by ALIGNZOO_PLUGINS") == 2
    assert "no plugin is installed" in cli(site.parent, "list", "plugins").stdout


@pytest.mark.slow
def test_a_command_that_looked_at_plugins_warns_in_one_line(site):
    done = cli(site, "list", "objectives", "--json")
    assert done.stderr == WARNING
    assert "mine" in [one["name"] for one in json.loads(done.stdout)]
    assert cli(site, "list", "mine").stderr == WARNING


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["list", "dpo"], ["show", "recipes/dpo_hh.yaml"]])  # fmt: skip
def test_what_names_only_built_ins_says_nothing_of_plugins(site, arguments):
    done = cli(site, *arguments)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_a_recipe_that_names_what_failed_gets_the_reason(site):
    done = cli(site, "validate", "recipes/dpo_hh.yaml", "objective=brokn")
    assert done.returncode == 2
    assert "no objective is called 'brokn'" in done.stderr
    assert "alignzoo-broken was not loaded: ModuleNotFoundError on import" in done.stderr


@pytest.mark.slow
def test_show_tells_what_is_required_and_what_may_be_null(site):
    text = cli(site, "list", "mine").stdout
    assert "beta (required)  (number, > 0)" in text
    assert "cut = None  (number | null, >= 1)" in text
    assert "objective: {name: mine, beta: ..., cut: null}" in text
    assert "package   alignzoo-mine 1.0" in text


@pytest.mark.slow
def test_a_traceback_can_be_asked_for_and_changes_no_exit_code(site):
    done = cli(site, "list", "dop", ALIGNZOO_TRACEBACK="1")
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-2].startswith("error: no objective is called 'dop'")


@pytest.mark.slow
def test_nobody_reading_on_is_no_failure(site):
    reader, writer = os.pipe()
    os.close(reader)
    try:
        command = [sys.executable, "-m", "alignzoo", "list", "--json"]
        done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")
