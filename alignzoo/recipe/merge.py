"""Merging of `extends`, overlays and overrides into one recipe.

Mappings merge key by key. Lists and values replace, and only `plugins` add up. A component whose `name` changes
replaces the whole node, so `objective=ipo` does not inherit DPO's fields. Paths are relative to the file that wrote
them; a recipe that is not beside that file may be a shipped one.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

from alignzoo.core.errors import UserError
from alignzoo.interfaces.data_source import ADDED
from alignzoo.interfaces.model_source import ON_TOP
from alignzoo.recipe.find import shipped_recipe
from alignzoo.recipe.parse import COMMAND_LINE, Node, read_file

BY_WORD = {("objective",), ("data",), ("data", "format"), ("train", "optimizer"), ("train", "schedule")}
"""Components that may be written as a bare word, for {name: word}."""
NAMED = BY_WORD | {("model",), ("references", "*")}
"""Components that are replaced as a whole when their name changes; * is any name."""
MODELS = {("model",), ("references", "*"), ("critic",)}
"""Sections that describe a model."""
PATHS = {(section, key) for section in ("model", "critic") for key in ("tokenizer", "chat_template")} | {("plugins",)}
"""Keys of paths, besides every `path`, `paths` and `from`."""
ALWAYS_A_PATH = {("model", "from"), ("data", "from"), ("references", "*", "from"), ("critic", "from"), ("plugins",)}
"""Keys that can't hold a hub id or a word."""

STARTS = ("from", "path", "config")
"""Keys of a model that name its start: the last layer that sets one replaces the others."""

MOST_FILES, MOST_BASES = 100, 20
"""Limits of what one recipe extends: files read, and files in a chain. Real recipes have about four."""

Path_ = tuple[str, ...]


def read_with_bases(path: Path, chain: tuple[Path, ...] = (), reads: list[Path] | None = None) -> Node:
    """Read a recipe file merged over everything it extends, with absolute paths.

    Args:
        path: The recipe.
        chain: The recipes that extend it, outermost first.
        reads: Every file that was read before it for the outermost recipe.

    Raises:
        UserError: A file has a mistake, or the recipe extends itself or too many files.
    """
    path = path.resolve() if path.exists() else path
    reads = [] if reads is None else reads
    reads.append(path)
    if len(reads) > MOST_FILES or len(chain) > MOST_BASES:
        first = chain[0] if chain else path
        what = f"{MOST_FILES} files" if len(reads) > MOST_FILES else f"{MOST_BASES} in a row"
        raise UserError("the recipe extends too many others", where=str(first), expected=f"at most {what}")
    if path in chain:
        circle = " -> ".join(part.name for part in (*chain[chain.index(path) :], path))
        raise UserError(f"recipes extend each other in a circle: {circle}", where=str(path))
    return with_bases(read_file(path), path.parent, (*chain, path), reads)


def with_bases(node: Node, folder: Path, chain: tuple[Path, ...] = (), reads: list[Path] | None = None) -> Node:
    """Return a recipe merged over everything it extends, with absolute paths.

    Args:
        node: The recipe.
        folder: Where its relative paths begin.
        chain: The recipes that extend it, outermost first, and its own file if it has one.
        reads: Every file that was read before it for the outermost recipe.

    Raises:
        UserError: It extends what is no recipe, or as `read_with_bases` does.
    """
    node, reads = resolve_paths(node, folder), [] if reads is None else reads
    bases = node.value.pop("extends", None)
    if bases is None:
        return node
    merged: Node | None = None
    for base in bases.value if isinstance(bases.value, list) else [bases]:
        if not isinstance(base.value, str):
            raise UserError("extends names recipes", where=str(base.origin), expected="a path, or a list of paths")
        beside = folder / base.value
        below = beside if beside.is_file() else shipped_recipe(base.value)
        if below is None:
            raise UserError(f"no such recipe: {beside}", where=str(base.origin))
        under = read_with_bases(below, chain, reads)
        merged = under if merged is None else merge(merged, under)
    return node if merged is None else merge(merged, node)


def merge(under: Node, over: Node, at: Path_ = ()) -> Node:
    """Return `over` merged on top of `under`; neither is changed."""
    if at == ("plugins",) and isinstance(under.value, list) and isinstance(over.value, list):
        there = [item.value for item in under.value]
        return Node([*deepcopy(under.value), *(deepcopy(i) for i in over.value if i.value not in there)], over.origin)
    if not (isinstance(under.value, dict) and isinstance(over.value, dict)):
        return deepcopy(over)
    if "name" in over.value and _kind(at) in NAMED and over.value["name"].value != _name(under):
        return _with_share(under, over) if _kind(at) == ("data",) and "from" not in over.value else deepcopy(over)
    if _kind(at) == ("data",) and "from" in over.value and "name" not in over.value and "from" not in under.value:
        return deepcopy(over)  # rows that a run draws, in place of other rows
    result = deepcopy(under)
    if _kind(at) in MODELS:
        _drop_other_starts(result, over)
    for key, node in over.value.items():
        below = (*at, key)
        result.value[key] = merge(result.value[key], node, below) if key in result.value else deepcopy(node)
        result.keys[key] = over.keys[key]
    result.origin = over.origin if not result.value else result.origin
    return result


def _with_share(under: Node, over: Node) -> Node:
    """Return another data source with the share of the rows that the recipe has.

    Recipes that hold rows apart do so on any data.
    """
    result = deepcopy(over)
    for key in ADDED:
        if key in under.value and key not in over.value:
            result.value[key], result.keys[key] = deepcopy(under.value[key]), under.keys[key]
    return result


def _drop_other_starts(under: Node, over: Node) -> None:
    """Drop the starts that `over` replaces.

    A path on top of an architecture also drops its tokenizer.
    """
    chosen = [key for key in STARTS if key in over.value and over.value[key].value is not None]
    if not chosen:
        return
    dropped = [key for key in STARTS if key not in chosen]
    if "path" in chosen and "path" not in under.value:
        dropped.append("tokenizer")
    for key in dropped:
        under.value.pop(key, None)


def _kind(at: Path_) -> Path_:
    """Return the general form of a path, without names of references and data sources.

    The name of a reference becomes *. Any data source of the recipe has the path of `data`.
    """
    at = _section(at)
    return ("references", "*", *at[2:]) if at[:1] == ("references",) and len(at) > 1 else at


def _name(node: Node) -> object:
    name = node.value.get("name")
    return name.value if name else None


def apply(node: Node, overrides: Sequence[tuple[list[str], Node]]) -> Node:
    """Return the recipe with overrides on top, in order.

    Raises:
        UserError: A key is below a value, or an index is not in the list.
    """
    for path, value in overrides:
        below = node
        for depth, key in enumerate(path[:-1], 1):
            below = below.value[key] if key in (below.value or {}) else Node({}, value.origin)
            if isinstance(below.value, list):
                path, value = path[:depth], _with_item(below, path, depth, value)
                break
            if not isinstance(below.value, dict) and below.value is not None:
                inner = ".".join(path[:depth])
                raise UserError(f"{'.'.join(path)}: {inner} is a value, not a section", where=COMMAND_LINE)
        top = value
        for key in reversed(path):
            top = Node({key: top}, value.origin, {key: value.origin})
        node = merge(node, resolve_paths(top, Path.cwd()))
    return node


def _with_item(items: Node, path: list[str], depth: int, value: Node) -> Node:
    """Return the list with one item, or a part of it, changed.

    An example is `objective.1.weight=0.5`. Indices count from 0.
    """
    index, *rest = path[depth:]
    indices = [str(n) for n in range(len(items.value))]
    if index not in indices:
        what = f"{'.'.join(path)}: {'.'.join(path[:depth])} is a list of {len(indices)}"
        raise UserError(what, where=COMMAND_LINE, expected=f"{' or '.join(indices)} in place of '{index}'")
    result = deepcopy(items)
    item = result.value[int(index)]
    if rest and isinstance(item.value, str):
        item = Node({"name": item}, item.origin, {"name": item.origin})
    result.value[int(index)] = apply(item, [(rest, value)]) if rest else value
    return result


def resolve_paths(node: Node, folder: Path, at: Path_ = ()) -> Node:
    """Expand bare words (`objective: dpo` to {name: dpo}) and make paths absolute, in place."""
    if _kind(at) in BY_WORD and isinstance(node.value, str):
        name = Node(node.value, node.origin)
        node.value, node.keys = {"name": name}, {"name": node.origin}
    if _kind(at) == ("references", "*") and isinstance(node.value, str):
        run = Node(node.value, node.origin)
        node.value, node.keys = {"from": run}, {"from": node.origin}
    if _is_path(at):
        for item in _texts(node):
            item.value = _absolute(item.value, folder, at)
        return node
    for key, child in _children(node):
        resolve_paths(child, folder, (*at, key))
    return node


def _section(at: Path_) -> Path_:
    """Return the path in `data` for a path in any other data source.

    These are a mixture's sources and the evaluation sets.
    """
    if at[:2] in (("data", "of"), ("eval", "data")) and len(at) > 2:
        return ("data", *at[3:])
    if at[:2] == ("eval", "data") and at[3:4] == ("of",) and len(at) > 4:
        return ("data", *at[5:])
    return at


def check_beside(node: Node, at: Path_ = ()) -> None:
    """Check the merged recipe for a path that exists in the working directory alone.

    A library would look for it there.

    Raises:
        UserError: There is one.
    """
    for item in _texts(node) if _is_path(at) else ():
        if item.value != "toy" and not Path(item.value).is_absolute() and Path(item.value).exists():
            key = ".".join(at)
            raise UserError(
                f"'{item.value}' is in the working directory, and not beside the recipe",
                where=f"{item.origin}: {key}", expected="a path relative to the recipe's file, or an absolute one",
                hint=f"on the command line, paths are relative to the working directory: {key}={item.value}",
            )  # fmt: skip
    for key, child in _children(node):
        check_beside(child, (*at, key))


def _is_path(at: Path_) -> bool:
    return (
        at in PATHS
        or (_kind(at)[:2] in MODELS and at[-1:] in (("tokenizer",), ("chat_template",)))
        or at[-1:] in (("path",), ("paths",), ("from",))
    )


def _texts(node: Node) -> list[Node]:
    items = node.value if isinstance(node.value, list) else [node]
    return [item for item in items if isinstance(item.value, str)]


def _children(node: Node) -> list[tuple[str, Node]]:
    if isinstance(node.value, dict):
        return list(node.value.items())
    return [(str(n), item) for n, item in enumerate(node.value)] if isinstance(node.value, list) else []


def _absolute(text: str, folder: Path, at: Path_) -> str:
    """Return an absolute path for text that looks like a path or exists.

    Hub ids and `toy` stay as they are.
    """
    path = Path(text).expanduser()
    marked = text.startswith((".", "/", "~")) or any(letter in text for letter in "*?[")
    exists = (folder / path).exists() and text != "toy"
    shipped = shipped_recipe(text) if at[-1] == "from" and not exists else None
    if shipped is not None:
        return str(shipped)
    if not (marked or exists or _kind(at) in ALWAYS_A_PATH):
        return text
    return str(_normal(folder / path))


def _normal(path: Path) -> Path:
    parts = path.absolute().parts
    kept: list[str] = []
    for part in parts:
        if part == ".." and len(kept) > 1:
            kept.pop()
        elif part != "..":
            kept.append(part)
    return Path(*kept)


def is_base(path: Sequence[str]) -> bool:
    """Return True for a key of `model` that describes the first policy of a chain.

    Every key but `from` does.
    """
    return len(path) > 1 and path[1] != "from"


def without_base(node: Node) -> Node:
    """Return an overlay without the keys of `model` that describe the first policy of a chain."""
    result = deepcopy(node)
    model = result.value.get("model")
    if model is not None and isinstance(model.value, dict):
        for key in set(model.value) - {"from", "dtype", *ON_TOP}:
            del model.value[key]
    return result
