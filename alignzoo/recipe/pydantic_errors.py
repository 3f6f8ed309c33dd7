"""Translation of pydantic's errors: in one vocabulary, at the place of the value."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from alignzoo.core.errors import MOST_PROBLEMS, Problem, nearest
from alignzoo.recipe.parse import Node
from alignzoo.recipe.peer_names import peer_of
from alignzoo.recipe.problems import mark
from alignzoo.recipe.renamed import new_key, new_value


def problems_of(
    error: ValidationError,
    node: Node,
    at: tuple[str, ...],
    model: type[BaseModel],
    reported: Sequence[str] = (),
    beside: Sequence[str] = (),
) -> Iterator[Problem]:
    """Yield a problem for each of pydantic's errors.

    Args:
        error: The errors of `model`.
        node: The whole recipe.
        at: The path of the section that `model` was validated from.
        model: The class of the section.
        reported: Fields whose own problems are reported elsewhere.
        beside: Keys of the section that are not the model's.
    """
    for item in error.errors(include_url=False)[:MOST_PROBLEMS]:
        loc = tuple(str(part) for part in item["loc"])
        if item["type"] == "missing" and len(loc) == 1 and loc[0] in reported:
            continue
        path = _written((*at, *loc), node)
        name, where = ".".join(path), mark(node, path)
        peer = peer_of(path[-1], name) if item["type"] == "extra_forbidden" and path else None
        if peer and not new_key(path[:-1], path[-1], str(getattr(model, "name", ""))):
            yield Problem(f"{name}: the name of other trainers", where, peer.key, hint=peer.note)
            continue
        what, expected, close = _renamed(item, path, model) or _sentence(
            item, [*_known(model, loc[:-1]), *(beside if len(loc) == 1 else ())], loc
        )
        yield Problem(f"{name}: {what}" if name else what, where, expected, close)
    if (left := error.error_count() - MOST_PROBLEMS) > 1:
        yield Problem(f"and {left:,} more problems like these", mark(node, at))


def _renamed(item: Any, path: tuple[str, ...], model: type[BaseModel]) -> tuple[str, str, str] | None:
    """A key or an option that has another spelling now."""
    if item["type"] == "extra_forbidden":
        new = new_key(path[:-1], path[-1], str(getattr(model, "name", "")))
        if len(path) == 1 and new not in _known(model, ()):  # a comparison's key in a recipe
            return None
        return ("was renamed", new, "") if new else None
    new = new_value(path, item.get("input")) if item["type"] == "literal_error" else ""
    return (f"'{item['input']}' was renamed", new, "") if new else None


def _sentence(item: Any, known: Sequence[str], loc: tuple[str, ...]) -> tuple[str, str, str]:
    """The problem, the expected value and the nearest spelling.

    Pydantic's `type` is stable between its versions; its messages are not.
    """
    kind, got, context = item["type"], item.get("input"), item.get("ctx", {})
    shown = repr(got) if len(repr(got)) <= 60 else f"{repr(got)[:57]}..."
    if kind == "extra_forbidden":
        close = nearest(loc[-1], known)
        return "no such field", "" if close else f"one of {', '.join(known)}", close
    if kind == "missing":
        return "missing", "", ""
    bounds = {"greater_than": "gt", "greater_than_equal": "ge", "less_than": "lt", "less_than_equal": "le"}
    if kind in bounds:
        words = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}[bounds[kind]]
        return f"{shown} is out of bounds", f"{words} {context[bounds[kind]]:g}", ""
    if kind == "too_short":
        return f"{shown} has too few items", f"at least {context['min_length']}", ""
    if kind in ("string_too_long", "string_too_short"):
        most = kind == "string_too_long"
        limit = f"at most {context['max_length']}" if most else f"at least {context['min_length']}"
        return f"{shown} is too {'long' if most else 'short'}", f"{limit} characters", ""
    if kind == "literal_error":
        options = [part.strip("'") for part in context["expected"].replace(" or ", ", ").split(", ")]
        return f"{shown} is not an option", f"one of {', '.join(options)}", nearest(str(got), options)
    if kind == "string_pattern_mismatch":
        return f"{shown} is not a name", "letters, digits, '_', '-' and '.', a letter or digit first", ""
    types = {
        "float": "a number", "int": "a whole number", "bool": "true or false", "string": "text", "dict": "a mapping",
        "tuple": "a list", "list": "a list", "finite": "a finite number", "model": "a mapping",
    }  # fmt: skip
    family = kind.split("_")[0]
    if family in types and kind != "value_error":
        return f"{shown} is not {types[family]}", "", ""
    if kind == "value_error":
        return str(context.get("error", item["msg"])), "", ""
    return f"{item['msg'][0].lower()}{item['msg'][1:]} (got {shown})", "", ""


def _known(model: type[BaseModel], loc: tuple[str, ...]) -> list[str]:
    """The fields of the section at `loc`, as a recipe writes them."""
    for part in loc:
        info = model.model_fields.get(part) or next((f for f in model.model_fields.values() if f.alias == part), None)
        annotation = info.annotation if info else None
        candidates = [annotation, *get_args(annotation)]
        inner = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)
        if inner is None:
            return []
        model = inner
    return [info.alias or name for name, info in model.model_fields.items()]


def _written(loc: tuple[str, ...], node: Node) -> tuple[str, ...]:
    """`loc` without the names that pydantic adds for the members of a union."""
    path: list[str] = []
    here: Node | None = node
    for part in loc:
        if here is None or not isinstance(here.value, dict | list):
            continue
        if isinstance(here.value, list):
            here = here.value[int(part)] if part.isdigit() and int(part) < len(here.value) else None
            path.append(part)
        elif part in here.value:
            here = here.value[part]
            path.append(part)
        elif part == loc[-1] and not part[:1].isupper() and "[" not in part and part not in ("str", "int"):
            path.append(part)
    return tuple(path)
