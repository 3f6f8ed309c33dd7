"""One recipe out of many files: `extends`, overlays and overrides.

Maps merge key by key, lists and values replace; only `plugins` add up. A map whose `name` changes replaces the whole
node, so that `objective=ipo` does not inherit DPO's fields. Paths are relative to the file that wrote them; a recipe
that is not there may be one that comes with alignzoo.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

from alignzoo.core.errors import UserError
from alignzoo.interfaces.model_source import ON_TOP
from alignzoo.recipe.find import shipped_recipe
from alignzoo.recipe.parse import COMMAND_LINE, Node, read_file

BY_WORD = {("objective",), ("data",), ("data", "format"), ("train", "optimizer"), ("train", "schedule")}
"""Nodes that are chosen by name, where a bare word means {name: word}."""
NAMED = BY_WORD | {("model",)}
"""Nodes that are replaced as a whole when their name changes."""
PATHS = {("model", "tokenizer"), ("plugins",)}
"""Relative to the file that wrote them; so is whatever is called `path`, `paths` or `from`."""
ALWAYS_A_PATH = {("model", "from"), ("plugins",)}

STARTS = ("from", "path", "config")
"""Of `model`: three ways to start, of which the last one said holds."""

Path_ = tuple[str, ...]


def read_with_bases(path: Path, chain: tuple[Path, ...] = ()) -> Node:
    """A recipe file merged over everything it extends, its paths made absolute."""
    path = path.resolve() if path.exists() else path
    if path in chain:
        circle = " -> ".join(part.name for part in (*chain[chain.index(path) :], path))
        raise UserError(f"recipes extend each other in a circle: {circle}", where=str(path))
    node = resolve_paths(read_file(path), path.parent)
    bases = node.value.pop("extends", None)
    if bases is None:
        return node
    merged: Node | None = None
    for base in bases.value if isinstance(bases.value, list) else [bases]:
        if not isinstance(base.value, str):
            raise UserError("extends names recipes", where=str(base.origin), expected="a path, or a list of paths")
        beside = path.parent / base.value
        below = beside if beside.is_file() else shipped_recipe(base.value)
        if below is None:
            raise UserError(f"no such recipe: {beside}", where=str(base.origin))
        under = read_with_bases(below, (*chain, path))
        merged = under if merged is None else merge(merged, under)
    return node if merged is None else merge(merged, node)


def merge(under: Node, over: Node, at: Path_ = ()) -> Node:
    """`over` on top of `under`; neither is changed."""
    if at == ("plugins",) and isinstance(under.value, list) and isinstance(over.value, list):
        there = [item.value for item in under.value]
        return Node([*deepcopy(under.value), *(deepcopy(i) for i in over.value if i.value not in there)], over.origin)
    if not (isinstance(under.value, dict) and isinstance(over.value, dict)):
        return deepcopy(over)
    if "name" in over.value and at in NAMED and over.value["name"].value != _name(under):
        return deepcopy(over)
    result = deepcopy(under)
    if at == ("model",):
        _drop_other_starts(result, over)
    for key, node in over.value.items():
        place = (*at, key)
        result.value[key] = merge(result.value[key], node, place) if key in result.value else deepcopy(node)
        result.keys[key] = over.keys[key]
    result.origin = over.origin if not result.value else result.origin
    return result


def _drop_other_starts(under: Node, over: Node) -> None:
    """A path said on top of an architecture takes its place, and the place of the tokenizer made for it."""
    said = [key for key in STARTS if key in over.value and over.value[key].value is not None]
    if not said:
        return
    gone = [key for key in STARTS if key not in said]
    if "path" in said and "path" not in under.value:
        gone.append("tokenizer")
    for key in gone:
        under.value.pop(key, None)


def _name(node: Node) -> object:
    name = node.value.get("name")
    return name.value if name else None


def apply(node: Node, overrides: Sequence[tuple[list[str], Node]]) -> Node:
    """Overrides on top of a recipe, one after the other. Raises UserError for a step into a value."""
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
    """The list with one item changed, or a part of it: `objective.1.weight=0.5`. Places count from 0."""
    place, *rest = path[depth:]
    places = [str(n) for n in range(len(items.value))]
    if place not in places:
        what = f"{'.'.join(path)}: {'.'.join(path[:depth])} is a list of {len(places)}"
        raise UserError(what, where=COMMAND_LINE, expected=f"{' or '.join(places)} in place of '{place}'")
    result = deepcopy(items)
    item = result.value[int(place)]
    if rest and isinstance(item.value, str):
        item = Node({"name": item}, item.origin, {"name": item.origin})
    result.value[int(place)] = apply(item, [(rest, value)]) if rest else value
    return result


def resolve_paths(node: Node, folder: Path, at: Path_ = ()) -> Node:
    """Make what was written complete: `objective: dpo` is {name: dpo}, and a path is relative to its file's folder."""
    if at in BY_WORD and isinstance(node.value, str):
        name = Node(node.value, node.origin)
        node.value, node.keys = {"name": name}, {"name": node.origin}
    if at in PATHS or at[-1:] in (("path",), ("paths",), ("from",)):
        if isinstance(node.value, str):
            node.value = _absolute(node.value, folder, at)
        elif isinstance(node.value, list):
            for item in node.value:
                if isinstance(item.value, str):
                    item.value = _absolute(item.value, folder, at)
    elif isinstance(node.value, dict | list):
        children = node.value.items() if isinstance(node.value, dict) else enumerate(node.value)
        for key, child in children:
            resolve_paths(child, folder, (*at, str(key)))
    return node


def _absolute(text: str, folder: Path, at: Path_) -> str:
    """Hub ids and the word `sample` stay what they are; what looks like a path or exists becomes absolute."""
    place = Path(text).expanduser()
    marked = text.startswith((".", "/", "~")) or any(letter in text for letter in "*?[")
    exists = (folder / place).exists() and text != "toy"
    shipped = shipped_recipe(text) if at[-1] == "from" and not exists else None
    if shipped is not None:
        return str(shipped)
    if not (marked or exists or at in ALWAYS_A_PATH):
        return text
    return str(_normal(folder / place))


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
    """Whether a key of `model` describes the first policy of a chain: all do but `from`."""
    return len(path) > 1 and path[1] != "from"


def without_base(node: Node) -> Node:
    """A recipe that starts from another one's run, without what an overlay says of the first policy."""
    result = deepcopy(node)
    model = result.value.get("model")
    if model is not None and isinstance(model.value, dict):
        for key in set(model.value) - {"from", "dtype", *ON_TOP}:
            del model.value[key]
    return result
