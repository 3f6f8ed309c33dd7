"""What pydantic found wrong, in our words and at the place where it was written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from alignzoo.core.errors import Problem, nearest
from alignzoo.recipe.parse import Node


def problems_of(
    error: ValidationError,
    node: Node,
    at: tuple[str, ...],
    model: type[BaseModel],
    told: Sequence[str] = (),
    beside: Sequence[str] = (),
) -> Iterator[Problem]:
    """Each of pydantic's errors about `model`, validated from the node at `at`; `told` are fields whose own problems
    are known already, `beside` are keys of the node that are not the model's."""
    for item in error.errors(include_url=False):
        loc = tuple(str(part) for part in item["loc"])
        if item["type"] == "missing" and len(loc) == 1 and loc[0] in told:  # its own problems are told already
            continue
        path = _written((*at, *loc), node)
        what, expected, close = _sentence(item, [*_known(model, loc[:-1]), *(beside if len(loc) == 1 else ())], loc)
        place = path[:-1] if item["type"] == "missing" else path
        name = ".".join(path)
        yield Problem(f"{name}: {what}" if name else what, mark(node, place), expected, close)


def _sentence(item: Any, known: Sequence[str], loc: tuple[str, ...]) -> tuple[str, str, str]:
    """Our words for pydantic's commonest errors; `type` is stable between its versions, its messages are not."""
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
    if kind == "literal_error":
        options = [part.strip("'") for part in context["expected"].replace(" or ", ", ").split(", ")]
        return f"{shown} is not an option", f"one of {', '.join(options)}", nearest(str(got), options)
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
    """The fields that the section at `loc` has, as they are written."""
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
    """`loc` without what pydantic adds for a union's members: names that nobody wrote."""
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


def mark(node: Node, path: tuple[str, ...]) -> str:
    """Where a key stands, or else the nearest thing around it."""
    mark = node.origin
    for part in path:
        if isinstance(node.value, dict) and part in node.value:
            mark, node = node.keys.get(part, node.value[part].origin), node.value[part]
        elif isinstance(node.value, list) and part.isdigit() and int(part) < len(node.value):
            node = node.value[int(part)]
            mark = node.origin
        else:
            break
    return str(mark)


def order(problem: Problem) -> tuple[str, int, int]:
    """Sorts problems by file, line and column."""
    file, _, rest = problem.where.partition(".yaml:")
    numbers = [int(part) for part in rest.split(":") if part.isdigit()]
    return (file, *[*numbers, 0, 0][:2])  # type: ignore[return-value]
