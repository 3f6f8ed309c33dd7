"""From merged nodes to a validated recipe, or every problem at once, each at its file, line and column."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from alignzoo.composition import Modified, Sum, meaningless
from alignzoo.errors import Problem, UserError, nearest
from alignzoo.objective import Objective
from alignzoo.recipe.read import Node
from alignzoo.recipe.schema import Optimizer, Recipe
from alignzoo.registry import Registry, registry

OPTIMIZERS = {cls.model_fields["name"].default: cls for cls in get_args(get_args(Optimizer)[0])}


def validate(node: Node, name: str) -> tuple[Recipe, Registry]:
    """Build the recipe. Raises UserError with every problem, in the order of the files' lines."""
    plain = node.plain()
    plain.setdefault("name", name)
    problems: list[Problem] = []
    known = registry()
    plugins = plain.get("plugins")
    if isinstance(plugins, list) and all(isinstance(path, str) for path in plugins):
        try:
            known = known.with_files([Path(path) for path in plugins])
        except UserError as error:
            problems += error.problems
    told = [key for key in ("objective", "data") if key in plain]
    problems += _objective(plain, node, known)
    problems += _data(plain, node, known)
    problems += _optimizer(plain, node)
    try:
        recipe = Recipe.model_validate(plain)
    except ValidationError as error:
        problems += _problems(error, node, (), Recipe, told=told)
        recipe = None
    if problems or recipe is None:
        raise UserError(sorted(dict.fromkeys(problems), key=_order))
    return recipe, known


def _objective(plain: dict[str, Any], node: Node, known: Registry) -> Iterator[Problem]:
    """Replace the objective's node by an objective: one, or the weighted sum of a list."""
    given = plain.pop("objective", None)
    if given is None:
        return
    if not isinstance(given, list):
        found: list[Objective] = []
        yield from _term(given, ("objective",), node, known, found)
        if found:
            plain["objective"] = found[0]
        return
    if not given:
        yield Problem("objective: an empty list", _mark(node, ("objective",)), "at least one objective")
    parts: list[Objective] = []
    weights: list[float] = []
    for i, item in enumerate(given):
        at = ("objective", str(i))
        item = {"name": item} if isinstance(item, str) else item
        weight = item.pop("weight", 1.0) if isinstance(item, dict) else 1.0
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < float("inf"):
            yield Problem(
                f"objective.{i}.weight: {weight!r} is not a weight", _mark(node, (*at, "weight")), "a number above 0"
            )
            weight = 1.0
        weights.append(float(weight))
        yield from _term(item, at, node, known, parts)
    if parts and len(parts) == len(given):
        plain["objective"] = Sum(parts=tuple(parts), weights=tuple(weights))
        why = meaningless(plain["objective"])
        if why:
            yield Problem(f"objective: {why}", _mark(node, ("objective",)))


def _term(given: Any, at: tuple[str, ...], node: Node, known: Registry, found: list[Objective]) -> Iterator[Problem]:
    """One objective, with its modifiers around it, appended to `found`; nothing where there are problems."""
    modifiers = given.pop("modifiers", []) if isinstance(given, dict) else []
    made: list[Any] = []
    yield from _made(given, at, "objective", node, known, made)
    if not isinstance(modifiers, list):
        yield Problem(f"{'.'.join(at)}.modifiers: not a list", _mark(node, (*at, "modifiers")), "a list of modifiers")
        return
    around: list[Any] = []
    for i, item in enumerate(modifiers):
        item = {"name": item} if isinstance(item, str) else item
        yield from _made(item, (*at, "modifiers", str(i)), "modifier", node, known, around)
    if not made or len(around) < len(modifiers):
        return
    objective = Modified(inner=made[0], modifiers=tuple(around)) if around else made[0]
    why = meaningless(objective)
    if why:
        yield Problem(f"{'.'.join(at)}: {why}", _mark(node, at))
        return
    found.append(objective)


def _data(plain: dict[str, Any], node: Node, known: Registry) -> Iterator[Problem]:
    given = plain.pop("data", None)
    found: list[Any] = []
    if given is not None:
        yield from _made(given, ("data",), "data source", node, known, found)
    if found:
        plain["data"] = found[0]


def _made(
    given: Any, at: tuple[str, ...], kind: str, node: Node, known: Registry, found: list[Any]
) -> Iterator[Problem]:
    """An instance of the class that the registry has under a {name: ..., fields} node's name, appended to `found`."""
    key = ".".join(at)
    if not isinstance(given, dict):
        yield Problem(f"{key}: a {type(given).__name__}", _mark(node, at), "a name, or {name: ..., its fields}")
        return
    fields = dict(given)
    name = fields.pop("name", None)
    if not isinstance(name, str):
        yield Problem(
            f"{key}.name: missing" if name is None else f"{key}.name: {name!r} is not a name", _mark(node, at)
        )
        return
    try:
        cls = known.find(kind, name)
    except UserError as error:
        for problem in error.problems:
            where = _mark(node, (*at, "name"))
            yield Problem(f"{key}.name: {problem.what}", where, problem.expected, problem.nearest, problem.hint)
        return
    try:
        found.append(cls(**fields))
    except ValidationError as error:
        yield from _problems(error, node, at, cls)


def _optimizer(plain: dict[str, Any], node: Node) -> Iterator[Problem]:
    """Validate the optimiser by its own class: pydantic's errors for a union speak of tags that nobody wrote."""
    train = plain.get("train")
    given = train.get("optimizer") if isinstance(train, dict) else None
    if not isinstance(train, dict) or not isinstance(given, dict) or "name" not in given:
        return
    at = ("train", "optimizer")
    cls = OPTIMIZERS.get(given["name"]) if isinstance(given["name"], str) else None
    if cls is None:
        close = nearest(str(given["name"]), OPTIMIZERS)
        expected = "" if close else f"one of {', '.join(OPTIMIZERS)}"
        yield Problem(
            f"train.optimizer.name: no optimiser is called '{given['name']}'",
            _mark(node, (*at, "name")),
            expected,
            close,
        )
        train["optimizer"] = OPTIMIZERS["sgd"](learning_rate=1)
        return
    try:
        train["optimizer"] = cls.model_validate(given)
    except ValidationError as error:
        train["optimizer"] = OPTIMIZERS["sgd"](learning_rate=1)
        yield from _problems(error, node, at, cls)


def _problems(
    error: ValidationError,
    node: Node,
    at: tuple[str, ...],
    model: type[BaseModel],
    told: Sequence[str] = (),
) -> Iterator[Problem]:
    for item in error.errors(include_url=False):
        loc = tuple(str(part) for part in item["loc"])
        if item["type"] == "missing" and len(loc) == 1 and loc[0] in told:  # its own problems are told already
            continue
        path = _written((*at, *loc), node)
        what, expected, close = _sentence(item, _known(model, loc[:-1]), loc)
        place = path[:-1] if item["type"] == "missing" else path
        name = ".".join(path)
        yield Problem(f"{name}: {what}" if name else what, _mark(node, place), expected, close)


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


def _mark(node: Node, path: tuple[str, ...]) -> str:
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


def _order(problem: Problem) -> tuple[str, int, int]:
    file, _, rest = problem.where.partition(".yaml:")
    numbers = [int(part) for part in rest.split(":") if part.isdigit()]
    return (file, *[*numbers, 0, 0][:2])  # type: ignore[return-value]
