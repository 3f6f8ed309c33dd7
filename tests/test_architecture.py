"""The house rules that a machine can hold: arrows of import, file sizes, what is public, what needs torch."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import alignzoo

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "alignzoo"
# Each room may import from itself and from rooms before it.
ROOMS = [
    ("hiding",),
    ("errors", "paths", "elsewhere", "durable", "aloud", "stopping", "launched", "accelerated", "ranks"),
    (
        "data.rows",
        "data.optional",
        "data.named_splits",
        "data.json_records",
        "data.parquet",
        "data.files",
        "data.format",
    ),
    ("ties", "seen", "objective", "metric", "judge", "reporter", "data.source", "model_source"),
    ("reading", "composition"),
    ("hookspecs",),
    ("data.template", "data.boundary"),
    ("data.dialogue", "data.preference", "data.records", "data.sample", "data.formats", "data.sources"),
    ("registry", "modifiers", "model_sources", "metrics", "judges", "reporters"),
    ("recipe",),
    ("arrays", "tree"),
    (
        "data.split",
        "data.unread",
        "data.tokenize",
        "data.report",
        "data.shapes",
        "data.sealed",
        "data.pile",
        "data.stream",
        "data.store",
        "data",
    ),
    ("padded",),
    ("flex", "compiling", "rope", "choices", "probes"),
    ("attention", "head", "adapters", "quantized"),
    ("oracle",),
    ("scoring",),
    ("sharding", "zero"),
    ("layout", "models", "shards", "memory", "masters", "progress"),
    ("refcache", "exactness"),
    ("reference",),
    ("objectives", "examples", "row_metrics", "tally", "watch"),
    ("decoding",),
    ("engine", "evaluate", "sampling", "samples", "checkpoint"),
    ("runfolder",),
    ("export",),
    ("report", "reporting"),
    ("flow", "fitting", "summary", "training"),
    ("score", "compare"),
    ("testing",),
    ("cli",),
]
MODULES = sorted(path for path in PACKAGE.rglob("*.py"))


def room_of(module: str) -> int:
    name = module.removeprefix("alignzoo.")
    matches = [
        (len(room), i) for i, rooms in enumerate(ROOMS) for room in rooms if name == room or name.startswith(room + ".")
    ]
    assert matches, f"{module} is in no room: add it to ROOMS"
    return max(matches)[1]


def imports_of(path: Path) -> list[str]:
    """Modules of ours that are imported when this one is: not inside functions, not for types alone."""
    found = []
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "alignzoo":
            found += [
                f"{node.module}.{alias.name}" if node.module == "alignzoo" else node.module for alias in node.names
            ]
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.startswith("alignzoo.")]
    return [name for name in found if name != "alignzoo" and "__version__" not in name]


def test_imports_point_one_way():
    back = []
    for path in MODULES:
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        if module not in ("alignzoo", "alignzoo.__main__"):
            back += [f"{module}: {name}" for name in imports_of(path) if room_of(name) > room_of(module)]
    assert back == [], "imports of modules to the right"


def test_files_stay_small():
    lengths = {path: len(path.read_text().splitlines()) for path in MODULES}
    assert max(lengths.values()) <= 350, max(lengths, key=lengths.get)
    assert sorted(lengths.values())[len(lengths) // 2] <= 130
    names = {path.name for path in MODULES}
    assert not {"utils.py", "helpers.py", "common.py"} & names


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


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["run", "--help"], ["plugins"], ["cache", "ls"]])
def test_small_commands_need_no_torch(arguments):
    code = (
        f"import sys; sys.argv = ['alignzoo', *{arguments!r}]\n"
        "from alignzoo.cli import _exit_code\ncode = _exit_code()\n"
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
