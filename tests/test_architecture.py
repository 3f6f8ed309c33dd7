"""The house rules that a machine can hold: arrows of import, file sizes, what is public, what needs torch."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import subprocess
import sys
import tomllib

import pytest
from checkout import ROOT

import alignzoo

PACKAGE = ROOT / "alignzoo"
MODULES = sorted(path for path in PACKAGE.rglob("*.py"))


def test_a_room_imports_from_the_rooms_below_it():
    """The layers are in pyproject.toml, under tool.importlinter: twelve tiers, no circle, no import that runs back up."""
    from importlinter.application.use_cases import lint_imports
    from importlinter.configuration import configure

    (contract,) = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    assert len(contract["layers"]) <= 12
    configure()
    assert lint_imports(config_filename=str(ROOT / "pyproject.toml"), cache_dir=None), "run lint-imports to see which"


def test_nothing_is_loose_and_every_room_has_a_charter():
    loose = {path.name for path in PACKAGE.glob("*.py")}
    assert loose == {"__init__.py", "__main__.py"}
    for face in PACKAGE.glob("*/**/__init__.py"):
        text = face.read_text()
        assert ast.get_docstring(ast.parse(text)), f"{face} has no charter"
        assert len(text.splitlines()) <= 40, face


def test_every_public_name_of_a_room_is_there():
    for face in PACKAGE.glob("*/**/__init__.py"):
        name = ".".join(face.parent.relative_to(ROOT).parts)
        room = importlib.import_module(name)
        for public in getattr(room, "__all__", ()):
            assert getattr(room, public) is not None, f"{name}.{public}"
            # whoever imported that module first would get the module in place of what it defines
            assert not (face.parent / f"{public}.py").exists(), f"{name}.{public} is also a module"


def test_files_stay_small():
    lengths = {path: len(path.read_text().splitlines()) for path in MODULES}
    assert max(lengths.values()) <= 350, max(lengths, key=lengths.get)
    assert sorted(lengths.values())[len(lengths) // 2] <= 130
    names = {path.name for path in MODULES}
    assert not {"utils.py", "helpers.py", "common.py"} & names


def test_the_first_line_of_a_docstring_is_short():
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    first = {
        f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}": text.splitlines()[0]
        for path in MODULES for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, documented) and (text := ast.get_docstring(node))
    }  # fmt: skip
    assert not {place: line for place, line in first.items() if len(line) > 88}


def test_every_module_imports():
    for module in pkgutil.walk_packages([str(PACKAGE)], "alignzoo."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def test_the_public_api_is_sorted_and_there():
    assert alignzoo.__all__ == sorted(alignzoo.__all__, key=lambda name: name.lower() if name.startswith("_") else name)
    for name in alignzoo.__all__:
        assert getattr(alignzoo, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        alignzoo.nothing  # noqa: B018
    assert callable(alignzoo.run)
    importlib.import_module("alignzoo.training.run")
    assert callable(alignzoo.run)  # a module of that name would have taken its place


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["run", "--help"], ["list", "plugins"], ["cache", "ls"]]
)
def test_small_commands_need_no_torch(arguments):
    code = (
        f"import sys; sys.argv = ['alignzoo', *{arguments!r}]\n"
        "from alignzoo.cli.app import _exit_code\ncode = _exit_code()\n"
        "heavy = {'torch', 'transformers', 'accelerate', 'matplotlib', 'datasets'}\n"
        "assert not heavy & set(sys.modules), 'heavy'\nsys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_recipe_is_read_without_transformers():
    code = (
        "import sys\nfrom alignzoo import load_recipe\nload_recipe('dpo_hh')\nassert 'transformers' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
