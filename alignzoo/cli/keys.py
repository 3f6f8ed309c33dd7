"""Explanations of a recipe's keys: type, bounds, default, description, keys below."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel

from alignzoo.cli.parameters import parameters

Class = type[BaseModel]
Owners = list[tuple[str, Class]]
"""Classes that a node may be of, each with the name that chooses it, or "" for a section."""


def is_key(name: str) -> bool:
    """Return True for a dotted path, a key at the top of a recipe, or another trainer's key."""
    from alignzoo.recipe.peer_names import PEERS
    from alignzoo.recipe.schema import Recipe
    from alignzoo.registry.lookup import registry

    top = name.partition(".")[0]
    return (
        name == "extends"
        or "." in name
        or ((top in Recipe.model_fields or name in PEERS) and not registry().find_all(name))
    )


def explain(path: str) -> list[dict[str, Any]]:
    """Describe the key at a dotted path, once for all components that describe it alike.

    Numbers and names of a list or a mapping, as in `eval.judges.0.path`, may be left out or given.

    Raises:
        UserError: A recipe has no such key. The error has the nearest one, or ours for another trainer's.
    """
    from alignzoo.core.errors import UserError, nearest
    from alignzoo.recipe.json_schema import EXTENDS
    from alignzoo.recipe.peer_names import PEERS
    from alignzoo.recipe.schema import Recipe

    if path == "extends":
        return [{"of": "", "type": "string | array", "bounds": "", "required": False, "default": None,
                 "description": EXTENDS, "keys": []}]  # fmt: skip
    owners: Owners = [("", Recipe)]
    found: list[tuple[str, Class, str]] = []
    mapping, of_node = False, None
    for place, part in enumerate(path.removesuffix("[]").replace("[]", "").split(".")):
        next_found = [(of, cls, field) for of, cls in owners if (field := _field(cls, part))]
        if not next_found and place and (part.isdigit() or mapping):
            mapping = False
            continue
        if not next_found and (of_node := _of_node(part, owners)):
            found, owners = [], _modifiers() if part == "modifiers" else []
            continue
        if not next_found:
            if not owners:
                raise UserError(f"no recipe has the key '{path}'", expected="no key below a single value")
            top = [] if place else ["extends"]
            peer, known = PEERS.get(part), sorted({*top, *(key for _, cls in owners for key in _keys(cls))})
            close = nearest(part, known)
            raise UserError(
                f"no recipe has the key '{path}'", nearest=close,
                expected=peer.key if peer and not close else "" if close else f"one of {', '.join(known)}",
            )  # fmt: skip
        found = next_found
        mapping = any(_is_mapping(cls, field) for _, cls, field in found)
        owners = [one for _, cls, field in found for one in _below(cls, field)]
    return _grouped(found, owners, [of_node] if of_node and not found else [])


def _of_node(part: str, owners: Owners) -> dict[str, Any] | None:
    """Describe a key of a component's node that is no field of its class, or return None."""
    from alignzoo.recipe.json_schema import BASES

    classes = owners[-1][1].__mro__ if owners else ()
    kind = next((BASES[cls.__name__] for cls in classes if cls.__name__ in BASES), "")
    entry = {"of": "", "type": "string", "bounds": "", "required": False, "default": None, "keys": []}
    if kind and part == "name":
        names = ", ".join(of for of, _ in owners if of)
        return entry | {"required": kind != "model source", "description": f"the {kind}: {names}"}
    if kind == "objective" and part == "modifiers":
        return entry | {"type": "list", "default": [], "description": "modifiers, the innermost first"}
    if kind == "objective" and part == "weight":
        about = "factor in the sum of a list of objectives"
        return entry | {"type": "number", "bounds": "> 0", "default": 1.0, "description": about}
    return None


def _modifiers() -> Owners:
    from alignzoo.registry.lookup import registry

    return sorted(registry().known("modifier").items())


def _grouped(
    found: list[tuple[str, Class, str]], owners: Owners, of_node: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return one entry for all components whose field is the same, and the keys below."""
    from alignzoo.interfaces.component import summary

    entries: list[dict[str, Any]] = []
    for of, cls, field in found:
        entry = next(one for one in parameters(cls) if one["name"] == (cls.model_fields[field].alias or field))
        entry = {key: entry[key] for key in ("type", "bounds", "required", "default", "description")}
        entry["type"] = entry["type"].replace("any", "section") if owners else entry["type"]
        same = next((one for one in entries if one["same"] == entry), None)
        if same is None:
            entries.append({"of": of, **entry, "same": entry, "keys": []})
        elif of:
            same["of"] = f"{same['of']}, {of}"
    for entry in entries:
        del entry["same"]
    entries += of_node
    sections = [
        {"of": name, "type": "", "bounds": "", "required": False, "default": None,
         "description": summary(cls), "keys": parameters(cls)}
        for name, cls in owners
    ]  # fmt: skip
    if len(sections) == 1 and not sections[0]["of"]:
        entries[-1]["keys"] = sections[0]["keys"]
        return entries
    return [*entries, *sections]


def _keys(cls: Class) -> Iterator[str]:
    yield from (info.alias or key for key, info in cls.model_fields.items())


def _field(cls: Class, key: str) -> str:
    """Return the name of the field that a recipe calls `key`, or ""."""
    return next((name for name, info in cls.model_fields.items() if (info.alias or name) == key), "")


def _is_mapping(cls: Class, field: str) -> bool:
    return "dict" in str(cls.model_fields[field].annotation)


def _below(cls: Class, field: str) -> Owners:
    """Return the classes of a section, of an optimizer or of a kind, whose fields are below."""
    from alignzoo.recipe.json_schema import BASES
    from alignzoo.recipe.rewards import Reward
    from alignzoo.recipe.schema import Recipe
    from alignzoo.recipe.validate import OPTIMIZERS
    from alignzoo.registry.lookup import registry

    if field == "optimizer":
        return list(OPTIMIZERS.items())
    result: Owners = []
    for inner in _classes(cls.model_fields[field].annotation):
        if kind := BASES.get(inner.__name__):
            result += sorted(registry().known(kind).items())
        elif inner is Reward:
            result += [("", Reward), *sorted(registry().known("judge").items())]
        elif inner is not Recipe:
            result.append(("", inner))
    return result


def _classes(annotation: Any) -> Iterator[Class]:
    """Yield the classes of fields in an annotation, also in unions, tuples and mappings."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _classes(part)
