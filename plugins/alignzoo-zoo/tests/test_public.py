"""The package is written as anybody's could be: with what `alignzoo` exports, torch and the standard library."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import alignzoo_zoo
import pytest

import alignzoo

FOLDER = Path(alignzoo_zoo.__file__).parent
FILES = sorted(FOLDER.rglob("*.py"))
DYNAMIC = {"__import__", "eval", "exec", "getattr", "setattr", "vars"}
"""Ways around the syntax tree."""


def problems(code: str) -> Iterator[str]:
    """What in a module's code is not open to a plugin's author."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from (f"import {name.name}" for name in node.names if not _is_open(name.name))
        elif isinstance(node, ast.ImportFrom):
            yield from _imports_from(node)
        elif isinstance(node, ast.Attribute) and node.attr.startswith("_") and not _is_own(node):
            yield f"the private attribute {node.attr}"
        elif isinstance(node, ast.Name) and node.id in DYNAMIC:
            yield f"the function {node.id}"


def _is_open(module: str) -> bool:
    top = module.partition(".")[0]
    return top in {"torch", "alignzoo_zoo"} or (top in sys.stdlib_module_names and top != "importlib")


def _imports_from(node: ast.ImportFrom) -> Iterator[str]:
    names = [name.name for name in node.names]
    if node.level == 0 and node.module == "alignzoo":
        yield from (f"from alignzoo import {name}" for name in names if name not in alignzoo.__all__)
    elif node.level == 0 and not _is_open(node.module or ""):
        yield f"from {node.module} import {', '.join(names)}"
    elif node.level > 1:
        yield "an import from outside of the package"


def _is_own(node: ast.Attribute) -> bool:
    dunder = node.attr.startswith("__") and node.attr.endswith("__")
    return dunder or (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(FOLDER)))
def test_it_uses_nothing_private(file):
    assert list(problems(file.read_text())) == []


def test_all_files_are_looked_at():
    assert {"__init__.py", "batch.py", "ranked.py", "unpaired.py"} <= {file.name for file in FILES}


@pytest.mark.parametrize(
    "code",
    [
        "import alignzoo", "from alignzoo.interfaces.objective import Objective",
        "import alignzoo.interfaces.loss_inputs as s",
        "import numpy",
        "from alignzoo import Objective, registry", "from alignzoo import *", "from transformers import Trainer",
        "from .. import alignzoo", "if True:\n    from alignzoo.training.step import Engine", "import importlib",
        "def f():\n    import alignzoo.data", "pair.chosen._tokens", "__import__('alignzoo.training.step')",
        "getattr(pair, '_state')",
    ],
)  # fmt: skip
def test_what_is_private_would_be_found(code):
    assert list(problems(code))


@pytest.mark.parametrize(
    "code",
    [
        "from alignzoo import Field, Objective", "import torch.nn.functional as F", "from math import log",
        "from alignzoo_zoo.length import RDPO", "from . import length", "self._kept(pair)", "type(self).__name__",
    ],
)  # fmt: skip
def test_what_is_public_is_not_found(code):
    assert list(problems(code)) == []
