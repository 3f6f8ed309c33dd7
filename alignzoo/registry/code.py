"""Digests of a plugin's code: its version and every module of its own package, not only the file with the class."""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from importlib.machinery import all_suffixes
from importlib.metadata import Distribution
from importlib.util import find_spec
from pathlib import Path

from alignzoo.core.digests import digest_bytes

SUFFIXES = tuple(all_suffixes())


def code_of_class(cls: type, distribution: Distribution | None = None, version: str = "") -> str:
    """32 hex digits of the code that a class is part of; its qualified name where there is no file.

    It covers the modules of the class's top-level package and, with `distribution`, of every other package that the
    distribution installs. For a class of alignzoo it covers the subpackage (`alignzoo.evaluation.judges`). For a plugin
    that is a single file it covers that file and the modules beside it that it imports, also indirectly.
    """
    module = cls.__module__
    file = getattr(sys.modules.get(module), "__file__", None)
    if module.startswith("alignzoo_file_") and file:
        return _digest(version, _imported(Path(file)))
    files = set(_modules_of(module))
    for name in _installed_by(distribution) if distribution else ():
        files.update(_modules_of(name))
    return _digest(version, files) if files else f"{module}.{cls.__qualname__}"


def _digest(version: str, files: Iterable[Path]) -> str:
    """Paths count relative to the folder that the files share, so that a moved package keeps its digest."""
    found = sorted(files)
    shared = Path(os.path.commonpath([file.parent for file in found]))
    lines = [f"{file.relative_to(shared).as_posix()} {digest_bytes(file.read_bytes())}" for file in found]
    return blake2b("\n".join([version, *lines]).encode(), digest_size=16).hexdigest()


def _modules_of(name: str) -> Iterator[Path]:
    """The files of the outermost package around a module that is no namespace; of alignzoo, of the subpackage."""
    parts = name.split(".")
    first = 2 if parts[0] == "alignzoo" else 1
    for depth in range(min(first, len(parts)), len(parts) + 1):
        around = ".".join(parts[:depth])
        module = sys.modules.get(around)
        try:
            spec = getattr(module, "__spec__", None) or find_spec(around)
        except (ImportError, ValueError, AttributeError):
            return
        if spec is None:
            return
        if spec.origin is None or not os.path.isfile(spec.origin):  # a namespace package, or built into Python
            continue
        if spec.submodule_search_locations is None:
            yield Path(spec.origin)
        for folder in spec.submodule_search_locations or ():
            yield from _below(Path(folder))
        return


def _below(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name != "__pycache__" and not name.startswith(".")]
        yield from (Path(place, name) for name in names if name.endswith(SUFFIXES))


def _installed_by(distribution: Distribution) -> set[str]:
    """Top-level names of a distribution: from top_level.txt where it has one, else from its list of files."""
    listed = (distribution.read_text("top_level.txt") or "").split()
    if listed:
        return set(listed)
    names = {file.parts[0] for file in distribution.files or () if file.name.endswith(SUFFIXES)}
    return {name.split(".")[0] for name in names if name != ".." and not name.startswith("__editable__")}


def _imported(file: Path) -> set[Path]:
    """A file, and the modules beside it that it imports anywhere, and what those import."""
    root = file.parent
    while (root / "__init__.py").is_file() and root != root.parent:
        root = root.parent
    found, waiting = set(), [file]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        if path.suffix == ".py":
            waiting += _beside(path, {file.parent, root})
    return found


def _beside(path: Path, roots: Iterable[Path]) -> Iterator[Path]:
    """Files below `roots` that the import statements of a module may load; a package counts as a whole."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        places = list(roots)
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module] if node.module else [alias.name for alias in node.names]
            if node.level:
                places = [path.parents[node.level - 1]]
        else:
            continue
        for top in {name.split(".")[0] for name in names}:
            for place in places:
                if (place / top / "__init__.py").is_file():
                    yield from _below(place / top)
                yield from (place / f"{top}{end}" for end in SUFFIXES if (place / f"{top}{end}").is_file())
