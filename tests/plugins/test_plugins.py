"""Every hook has a built-in, a package that uses it and a documented signature; the example installs and works."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from checkout import ROOT
from jobs import command, python

import alignzoo
from alignzoo.interfaces import hookspecs
from alignzoo.registry.known_packages import PACKAGE_OF
from alignzoo.registry.lookup import Registry

PLUGINS = sorted(path.parent for path in (ROOT / "plugins").glob("*/pyproject.toml"))


def modules(plugin: Path) -> list[Path]:
    """A plugin's own code: one module, or a package."""
    package = plugin / plugin.name.replace("-", "_")
    return sorted(package.glob("*.py")) if package.is_dir() else [plugin / f"{package.name}.py"]


@pytest.mark.parametrize("kind", hookspecs.KINDS)
def test_every_hook_has_a_built_in_a_package_and_a_heading(kind):
    hook, base = hookspecs.KINDS[kind]
    assert Registry().known(kind)
    assert any(f"def {hook}()" in file.read_text() for plugin in PLUGINS for file in modules(plugin))
    heading = f"### {hook}() -> list[type[{base.partition(':')[2]}]]"
    assert heading in (ROOT / "docs" / "plugins.md").read_text()


@pytest.mark.slow
def test_names_known_elsewhere_are_what_the_packages_offer(site):
    """Every name of every package of ours, and no other: what is not installed is told with the package to install."""
    offered: dict[str, dict[str, str]] = {}
    for info in json.loads(cli(site, "list", "plugins", "--json").stdout):
        assert not info["problem"]
        for kind, names in info["offers"].items():
            offered.setdefault(kind, {}).update(dict.fromkeys(names, info["package"]))
    assert offered == PACKAGE_OF


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """All packages built as wheels and installed in a folder of their own."""
    target = tmp_path_factory.mktemp("site")
    quiet = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check"]
    done = python("-m", "pip", "install", *quiet, "--target", target, *PLUGINS).wait()
    assert done.returncode == 0, done.stderr
    return target


def cli(site: Path, *arguments: str) -> subprocess.CompletedProcess:
    return command(*arguments, PYTHONPATH=str(site), ALIGNZOO_PLUGINS=None).wait()


@pytest.mark.slow
def test_installed_plugins_are_found_and_a_recipe_uses_one(site):
    found = {info["package"]: info for info in json.loads(cli(site, "list", "plugins", "--json").stdout)}
    assert found["alignzoo-example"]["offers"] == {"objective": ["hinge"]}
    assert found["alignzoo-shp"]["offers"] == {"data source": ["shp"]}
    assert "Liu et al. 2023" in cli(site, "list", "hinge").stdout
    recipe = "plugins/alignzoo-example/hinge_hh.yaml"
    done = cli(site, "run", recipe, "--with", "tests/smallest.yaml", "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["objective"] == {"name": "hinge", "beta": 0.1}
    assert [plugin["package"] for plugin in summary["plugins"]] == ["alignzoo", "alignzoo-example"]
    assert list(summary["plugins"][1]["code"]) == ["hinge"]


@pytest.mark.slow
def test_recipes_of_the_zoo_are_good_where_it_is_installed(site):
    recipes = sorted(str(path) for name in ("zoo", "online") for path in (ROOT / "recipes" / name).glob("*_hh.yaml"))
    code = (
        "import sys\nfrom alignzoo.cli.app import _exit_code\nfor recipe in sys.argv[1:]:\n"
        "    sys.argv = ['alignzoo', 'validate', recipe, 'data.max_train_rows=128', 'data.held_out_rows=32']\n"
        "    assert _exit_code() == 0, recipe"
    )
    done = python("-c", code, *recipes, PYTHONPATH=str(site), ALIGNZOO_PLUGINS=None).wait()
    assert done.returncode == 0, done.stderr
    assert recipes


@pytest.mark.slow
def test_one_run_names_a_plugin_of_every_other_kind(site, tmp_path, monkeypatch):
    """A soup of two SFT runs, trained with KTO on rows in IMDb's format, measured, judged and described by plugins."""
    monkeypatch.setenv("ALIGNZOO_RUNS", str(tmp_path / "runs"))
    reviews = [{"text": f"Film {i} is " + ("very good" if i % 2 else "so bad"), "label": i % 2} for i in range(300)]
    (tmp_path / "reviews.jsonl").write_text("".join(json.dumps(review) + "\n" for review in reviews))
    policies = []
    for seed in (1, 2):
        done = cli(site, "run", "sft_hh", f"seed={seed}", "--with", "tests/smallest.yaml", "--json")
        assert done.returncode == 0, done.stderr
        name = f"sft_hh-{json.loads(done.stdout)['fingerprint'][:8]}"
        policies.append(str(tmp_path / "runs" / name / "policy"))
    (tmp_path / "all.yaml").write_text(f"""
name: every_kind
extends: {ROOT}/recipes/bases/hh.yaml
objective: {{name: kto, beta: 0.2}}
data: {{name: files, path: reviews.jsonl, format: {{name: imdb, prompt_words: 2}}}}
model: {{name: soup, paths: [{policies[0]}, {policies[1]}]}}
train: {{batch_size: 16, max_steps: 4, optimizer: {{name: sgd, learning_rate: 0.1}}}}
eval: {{metrics: [entropy], judges: [flesch], replies: {{num_prompts: 2, max_new_tokens: 8}}}}
reporters: [{{name: card, license: mit}}]
""")
    done = cli(site, "run", str(tmp_path / "all.yaml"), "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    used = {plugin["package"]: sorted(plugin["code"]) for plugin in summary["plugins"]}
    assert used == {
        "alignzoo": ["entropy", "files"], "alignzoo-card": ["card"], "alignzoo-imdb": ["imdb"],
        "alignzoo-readability": ["flesch"], "alignzoo-soup": ["soup"], "alignzoo-zoo": ["kto"],
    }  # fmt: skip
    assert "flesch" in summary["judges"]
    (card,) = (tmp_path / "runs").glob("every_kind-*/policy/README.md")
    assert "license: mit" in card.read_text()
    done = cli(site, "run", "dpo_hh", "--with", "tests/smallest.yaml", "eval.metrics=[flipped, displaced]", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["eval"]["flipped_se"] >= 0


@pytest.mark.slow
def test_installing_a_plugin_changes_no_run_that_does_not_name_it(site, tmp_path):
    """The fingerprint, and with it the folder and everything in it, is the same with and without plugins."""
    plans = [json.loads(cli(folder, "validate", "recipes/dpo_hh.yaml", "--json").stdout) for folder in (site, tmp_path)]
    assert plans[0] == plans[1]


@pytest.mark.slow
def test_the_plugins_own_tests_pass(site):
    words = ["-q", "-p", "no:cacheprovider", "-c", os.devnull, f"--rootdir={ROOT / 'plugins'}"]
    folders = [plugin / "tests" for plugin in PLUGINS]
    done = python("-m", "pytest", *words, *folders, PYTHONPATH=str(site)).wait(3600)
    assert done.returncode == 0, done.stdout
    assert all(list(folder.glob("test_*.py")) for folder in folders)


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda path: path.name)
def test_plugins_use_only_the_public_api(plugin):
    import ast

    for file in modules(plugin):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                assert not name.startswith("alignzoo."), f"{file}: {name}"
                if name == "alignzoo":
                    assert isinstance(node, ast.ImportFrom), f"{file}: import alignzoo"
                    assert {alias.name for alias in node.names} <= set(alignzoo.__all__)
