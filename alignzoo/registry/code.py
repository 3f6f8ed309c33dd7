"""Digests of a plugin's code: its version and all modules of its package."""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b
from importlib.machinery import all_suffixes
from importlib.metadata import Distribution
from importlib.util import find_spec
from pathlib import Path

from alignzoo.core.digests import digest_bytes
from alignzoo.core.door import read_bytes

SUFFIXES = tuple(all_suffixes())
MODULE_BYTES = 2**31
"""Limit of one module; compiled ones have hundreds of megabytes."""


def code_of_class(cls: type, distribution: Distribution | None = None, version: str = "") -> str:
    """Return 32 hex digits of the code of a class's package.

    Without a file it is the qualified name of the class. The digest covers the modules of the class's top-level
    package. With `distribution` it also covers the other packages that the distribution installs. For a class of
    alignzoo it covers the subpackage, such as `alignzoo.evaluation`. For a class of a plugin file see `code_of_file`.
    """
    module = cls.__module__
    file = getattr(sys.modules.get(module), "__file__", None)
    if module.startswith("alignzoo_file_") and file:
        return code_of_file(Path(file), read_bytes(file, MODULE_BYTES))
    files = set(_modules_of(module))
    for name in _installed_by(distribution) if distribution else ():
        files.update(_modules_of(name))
    return _digest(version, files) if files else f"{module}.{cls.__qualname__}"


def code_of_file(path: Path, source: bytes) -> str:
    """Return 32 hex digits of the code of a plugin file and of the modules it imports.

    The file's bytes are `source`. The modules are those beside it. Modules that those import count too. Raises BadFile
    if one can't be read.
    """
    return _digest("", _imported(path, source), {path: source})


def _digest(version: str, files: Iterable[Path], known: Mapping[Path, bytes] | None = None) -> str:
    """Return the digest of files, with paths relative to their common folder.

    A package can therefore be moved.
    """
    found, known = sorted(files), known or {}
    shared = Path(os.path.commonpath([file.parent for file in found]))
    sources = (known[file] if file in known else read_bytes(file, MODULE_BYTES) for file in found)
    lines = [
        f"{file.relative_to(shared).as_posix()} {digest_bytes(source)}"
        for file, source in zip(found, sources, strict=True)
    ]
    return blake2b("\n".join([version, *lines]).encode(), digest_size=16).hexdigest()


def _modules_of(name: str) -> Iterator[Path]:
    """Yield the files of a module's outermost package that is not a namespace.

    For alignzoo these are the files of the subpackage.
    """
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
    """Return the top-level names of a distribution.

    They are from top_level.txt, or else from its list of files.
    """
    listed = (distribution.read_text("top_level.txt") or "").split()
    if listed:
        return set(listed)
    names = {file.parts[0] for file in distribution.files or () if file.name.endswith(SUFFIXES)}
    return {name.split(".")[0] for name in names if name != ".." and not name.startswith("__editable__")}


def _imported(file: Path, source: bytes) -> set[Path]:
    """Return a file and the modules beside it that it imports, directly or indirectly.

    The file's bytes are `source`.
    """
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
            waiting += _beside(path, source if path == file else read_bytes(path, MODULE_BYTES), {file.parent, root})
    return found


def _beside(path: Path, source: bytes, roots: Iterable[Path]) -> Iterator[Path]:
    """Yield the files below `roots` that a module's import statements may load.

    Whole packages are included.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # the import will say so
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
