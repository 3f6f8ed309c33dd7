"""Every snippet of every page works: Python runs, recipes validate, command lines parse. Nothing is trained."""

from __future__ import annotations

import inspect
import re
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
import yaml
from checkout import ROOT

import alignzoo as package
from alignzoo.cli import alignzoo as cli
from alignzoo.compare.spec import read_comparison
from alignzoo.core.errors import UserError
from alignzoo.recipe.load import load_recipe
from alignzoo.training.run import RunResult

PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "plugins/**/*.md", "recipes/**/*.md")
    for path in ROOT.glob(pattern)
    if "```" in path.read_text(encoding="utf-8") and not {"build", "site"} & set(path.relative_to(ROOT).parts)
)
PLACEHOLDER = re.compile(r"\b[A-Z][A-Z_]{2,}\b")
"""RECIPE, FILE_OR_FOLDER: what a reader puts something else for."""


def blocks(page: Path, language: str) -> list[tuple[str, str]]:
    """(the three lines before it, its text) of every block in a language."""
    found, lines, opened = [], page.read_text(encoding="utf-8").splitlines(keepends=True), -1
    for number, line in enumerate(lines):
        if opened < 0 and line.startswith("```"):
            opened = number
        elif opened >= 0 and line.startswith("```"):
            if lines[opened].strip() == f"```{language}":
                found.append(("".join(lines[max(0, opened - 3) : opened]), "".join(lines[opened + 1 : number])))
            opened = -1
    return found


@pytest.fixture(autouse=True)
def every_plugin(tmp_path, monkeypatch) -> Path:
    """An overlay that loads all packages of plugins/, and a working directory for files that a page writes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, hooks in {"zoo": "register_modifiers, register_objectives", "online": "register_objectives"}.items():
        monkeypatch.syspath_prepend(str(ROOT / "plugins" / f"alignzoo-{name}"))
        (tmp_path / f"{name}.py").write_text(f"from alignzoo_{name} import {hooks}\n")
    files = [tmp_path / "zoo.py", tmp_path / "online.py", *(ROOT / "plugins").glob("*/alignzoo_*.py")]
    overlay = tmp_path / "every_plugin.yaml"
    overlay.write_text(yaml.safe_dump({"plugins": sorted(map(str, files))}))
    return overlay


def write_python(page: Path) -> None:
    """The page's Python files, under the names that the text before them says."""
    for before, text in blocks(page, "python"):
        for name in re.findall(r"`(\w+\.py)`", before)[-1:]:
            Path(name).write_text(text)
            sys.modules.pop(name.removesuffix(".py"), None)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_snippets(page, every_plugin, monkeypatch):
    write_python(page)
    calls = {"run": checked_run, "score": no_rows, "generate": no_rows, "compare": checked_comparison,
             "judge": checked_judges}  # fmt: skip
    for name, call in calls.items():
        monkeypatch.setattr(package, name, call, raising=False)
    for _, text in blocks(page, "python"):
        exec(compile(text, str(page), "exec"), {"__name__": "snippet"})
    for before, text in blocks(page, "yaml"):
        check_yaml(text, every_plugin, (re.findall(r"`(\w+\.yaml)`", before) or ["snippet.yaml"])[-1])
    for _, text in blocks(page, "sh"):
        for line in text.replace("\\\n", " ").splitlines():
            check_command(line, every_plugin)


def checked_run(*arguments, **options) -> RunResult:
    """In place of `alignzoo.run`: the same signature and the same recipe, without training."""
    from alignzoo.api.resolve import resolve
    from alignzoo.api.runs import run

    asked = inspect.signature(run).bind(*arguments, **options).arguments
    resolve(**{name: value for name, value in asked.items() if name not in ("fresh", "quiet")})
    return RunResult(Path("runs/snippet"), {"eval": {"preference_accuracy": 0.5}})


def no_rows(result: RunResult, *arguments, **options) -> list[dict]:
    """In place of `alignzoo.score` and `alignzoo.generate`, of a run that was not made."""
    assert isinstance(result, RunResult)
    return []


def checked_comparison(recipes: list, **options):
    """In place of `alignzoo.compare`: the plan, without training."""
    from alignzoo.api.comparisons import ComparisonResult
    from alignzoo.compare.plan import make_plan
    from alignzoo.compare.spec import Comparison

    make_plan(Comparison(recipes=tuple(recipes), **options))
    return SimpleNamespace(**dict.fromkeys(["folder", *ComparisonResult.__dict__.keys() & {"rows", "table"}]))


def checked_judges(data, **options) -> dict:
    """In place of `alignzoo.judge`: the judges and the data sources, without asking."""
    from alignzoo.api.judges import judge
    from alignzoo.compare.eval_data import read_sets
    from alignzoo.compare.judge_report import labeled_judges

    inspect.signature(judge).bind(data, **options)
    assert labeled_judges(options["judges"])
    assert read_sets([data])
    return {}


def check_yaml(text: str, plugins: Path, name: str) -> None:
    """Read a recipe, which stays under the name that the text before it says, for the next one on its page."""
    named = re.match(r"# (recipes/\S+\.yaml)\n", text)
    values = yaml.safe_load(text)
    if named:
        assert yaml.safe_load((ROOT / named[1]).read_text()) == values, named[1]
        return
    file = Path(name)
    file.write_text(text)
    if "recipes" in values:
        read_comparison(file.absolute())
    elif "extends" in values or "draw" in values:
        load_recipe(file, (), [plugins])
    else:
        load_recipe("zoo/ranked_hh" if "list" in text else "dpo_hh", (), [plugins, file])


def check_command(line: str, plugins: Path) -> None:
    words = shlex.split(line, comments=True)
    if "alignzoo" in words:
        for part in " ".join(shlex.quote(word) for word in words).split(" '&' "):
            words = shlex.split(part)
            if "alignzoo" in words:
                check_cli(words[words.index("alignzoo") + 1 :], plugins)
    elif words[:1] == ["make"]:
        assert all(re.search(f"^{word}:", (ROOT / "Makefile").read_text(), re.M) for word in words[1:2]), line
    elif words[:1] == ["python"] and words[1].endswith(".py"):
        assert Path(words[1]).is_file() or (ROOT / words[1]).is_file(), line


def check_cli(words: list[str], plugins: Path) -> None:
    words = words[: next((i for i, word in enumerate(words) if word in (";", "wait", "&")), len(words))]
    words = [word.rstrip(";") for word in words]
    context = cli.make_context("alignzoo", list(words))
    command: click.Command = cli
    while isinstance(command, click.Group):
        rest = [*context._protected_args, *context.args]
        if not rest:
            return
        name, found, rest = command.resolve_command(context, rest)
        assert found is not None, words
        command, context = found, found.make_context(str(name), rest, parent=context)
    given = context.params
    if "overrides" in given and "recipe" in given and not PLACEHOLDER.search(given["recipe"]):
        asked = [value for value in given["overrides"] if not PLACEHOLDER.search(value)]
        overlays = [one for one in given["overlays"] if not PLACEHOLDER.search(one) and not Path(one).stem.islower()]
        known = [one for one in given["overlays"] if one not in overlays and is_recipe(one)]
        if is_recipe(given["recipe"]) and "my_loss" not in " ".join(asked):
            load_recipe(given["recipe"], asked, [plugins, *known])


def is_recipe(name: str) -> bool:
    from alignzoo.recipe.find import find_recipe

    try:
        return bool(find_recipe(name))
    except UserError:
        return False


def test_the_error_in_the_readme_is_what_a_typo_gives(tmp_path):
    (message,) = re.findall(r"^my\.yaml:7:3: .*$", (ROOT / "README.md").read_text(), re.M)
    head = "extends: dpo_hh.yaml\n" + "#\n" * 4 + "train:\n  epohcs: 2\n"
    (tmp_path / "my.yaml").write_text(head)
    with pytest.raises(UserError) as error:
        load_recipe(tmp_path / "my.yaml")
    assert str(error.value).replace(f"{tmp_path}/", "") == message
