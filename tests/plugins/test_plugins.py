"""Every hook has a built-in, a package that uses it and a documented signature; the example installs and works."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from alignzoo import hookspecs
from alignzoo.elsewhere import PACKAGE_OF
from alignzoo.registry import Registry

ROOT = Path(__file__).parent.parent.parent
PLUGINS = sorted(path.parent for path in (ROOT / "plugins").glob("*/pyproject.toml"))


@pytest.mark.parametrize("kind", hookspecs.KINDS)
def test_every_hook_has_a_built_in_a_package_and_a_heading(kind):
    hook, base = hookspecs.KINDS[kind]
    assert Registry().known(kind)
    assert any(f"def {hook}()" in file.read_text() for plugin in PLUGINS for file in plugin.glob("*.py"))
    heading = f"### {hook}() -> list[type[{base.partition(':')[2]}]]"
    assert heading in (ROOT / "plugins" / "README.md").read_text()


def test_names_known_elsewhere_are_in_the_packages_that_are_named():
    for kind, names in PACKAGE_OF.items():
        assert kind in hookspecs.KINDS
        for name, package in names.items():
            code = "".join(file.read_text() for file in (ROOT / "plugins" / package).glob("*.py"))
            assert f'name = "{name}"' in code


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Both packages built as wheels and installed in a folder of their own."""
    target = tmp_path_factory.mktemp("site")
    quiet = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", *quiet, "--target", target, *PLUGINS]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


def cli(site: Path, *arguments: str) -> subprocess.CompletedProcess:
    environment = {key: value for key, value in os.environ.items() if key != "ALIGNZOO_PLUGINS"} | {
        "PYTHONPATH": str(site)
    }
    command = [sys.executable, "-m", "alignzoo", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)


@pytest.mark.slow
def test_installed_plugins_are_found_and_a_recipe_uses_one(site):
    found = {info["package"]: info for info in json.loads(cli(site, "plugins", "--json").stdout)}
    assert found["alignzoo-example"]["offers"] == {"objective": ["hinge"]}
    assert found["alignzoo-shp"]["offers"] == {"data source": ["shp"]}
    assert "Liu et al. 2023" in cli(site, "objectives", "show", "hinge").stdout
    recipe = "plugins/alignzoo-example/hinge_hh.yaml"
    done = cli(site, "run", recipe, "--with", "recipes/scale/smallest.yaml", "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["objective"] == {"name": "hinge", "beta": 0.1}
    assert [plugin["package"] for plugin in summary["plugins"]] == ["alignzoo", "alignzoo-example"]


@pytest.mark.slow
def test_installing_a_plugin_changes_no_run_that_does_not_name_it(site, tmp_path):
    """The fingerprint, and with it the folder and everything in it, is the same with and without plugins."""
    plans = [json.loads(cli(folder, "validate", "recipes/dpo_hh.yaml", "--json").stdout) for folder in (site, tmp_path)]
    assert plans[0] == plans[1]


@pytest.mark.slow
@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda path: path.name)
def test_the_plugins_own_tests_pass(plugin, site):
    environment = dict(os.environ) | {"PYTHONPATH": str(site)}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-c",
        os.devnull,
        "--rootdir",
        str(plugin),
        str(plugin / "tests"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda path: path.name)
def test_plugins_use_only_the_public_api(plugin):
    for file in plugin.glob("*.py"):
        for line in file.read_text().splitlines():
            if "alignzoo" in line and line.startswith(("import", "from")):
                assert line.startswith("from alignzoo import "), line
