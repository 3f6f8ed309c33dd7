"""Nodes of the form {name: ..., fields}, built as instances of registered classes.

The registry has each class by its name.
"""

from __future__ import annotations

from typing import Annotated, Any, get_args, get_origin

from pydantic import ValidationError

from alignzoo.core.errors import UserError
from alignzoo.interfaces.data_source import DataSource
from alignzoo.interfaces.format import Format
from alignzoo.recipe.problems import Problems
from alignzoo.recipe.pydantic_errors import problems_of
from alignzoo.recipe.renamed import new_name, new_value
from alignzoo.registry.lookup import Registry

NESTED = {Format: "format", DataSource: "data source"}
"""Base class that annotates a field -> the kind of the component, or of the list of components, in that field."""

DEFAULT = {"data source": "draws"}
"""Kind -> the component of a node that names a recipe, in `from`, and no component."""

Path = tuple[str, ...]


class ComponentBuilder:
    """Build the components of a recipe, and collect the problems of those that can't be built."""

    def __init__(self, registry: Registry, problems: Problems) -> None:
        self.registry, self.problems = registry, problems

    def build(self, given: Any, at: Path, kind: str, beside: Path = ()) -> Any | None:
        """Return the component that a plain node names, or None where it has a problem.

        `given` is the node, and `at` its path. `beside` are keys of the node that the caller reads, for the list of
        valid keys.
        """
        if not isinstance(given, dict):
            self.problems.add(at, f"a {type(given).__name__}", "a name, or {name: ..., its fields}")
            return None
        fields = dict(given)
        if kind in DEFAULT and "from" in fields:
            fields.setdefault("name", DEFAULT[kind])
        cls = self._class(fields.pop("name", None), at, kind)
        if cls is None:
            return None
        for field, info in getattr(cls, "model_fields", {}).items():
            nested = nested_kind(info.annotation) if field in fields else None
            if nested is None:
                continue
            if get_origin(info.annotation) is not tuple:
                fields[field] = self.build(as_node(fields[field]), (*at, field), nested)
                if fields[field] is None:
                    return None
            elif isinstance(fields[field], list):
                items = enumerate(map(as_node, fields[field]))
                fields[field] = [self.build(item, (*at, field, str(i)), nested) for i, item in items]
                if None in fields[field]:
                    return None
        try:
            component = cls(**fields)
        except ValidationError as error:
            self.problems.extend(problems_of(error, self.problems.node, at, cls, beside=beside))
            return None
        for field, value in fields.items():  # free text, which no schema checks
            if isinstance(value, str) and (new := new_value((*at, field), value)):
                self.problems.add((*at, field), f"'{value}' was renamed", new)
        return component

    def _class(self, name: Any, at: Path, kind: str) -> Any | None:
        at = (*at, "name")
        if not isinstance(name, str):
            self.problems.add(at, "missing" if name is None else f"{name!r} is not a name")
            return None
        try:
            return self.registry.find(kind, name)
        except UserError as error:
            if new := new_name(kind, name):
                self.problems.add(at, f"the {kind} '{name}' was renamed", new)
                return None
            for problem in error.problems:
                self.problems.add(at, problem.what, problem.expected, problem.nearest, problem.hint)
            return None

    def build_by_name(self, given: Any, at: Path, kind: str) -> dict[str, Any]:
        """Return the components of a mapping of names to nodes, without those that have a problem.

        A name whose node is null is left out, so that an overlay can drop what it inherits.
        """
        if not isinstance(given, dict):
            self.problems.add(at, "not a mapping", f"names, each with a {kind}")
            return {}
        built = {name: self.build(as_node(item), (*at, name), kind) for name, item in given.items() if item is not None}
        return {name: one for name, one in built.items() if one is not None}

    def build_list(self, given: Any, at: Path, kind: str) -> tuple[Any, ...]:
        """Return the components of a list of names or nodes, without those that have a problem.

        A list of one may be written as its item.
        """
        given = as_list(given)
        if not isinstance(given, list):
            self.problems.add(at, "not a list", f"a list of {kind}s")
            return ()
        built = [self.build(as_node(item), (*at, str(i)), kind) for i, item in enumerate(given)]
        found = [one for one in built if one is not None]
        names = [one.name for one in found]
        for name in dict.fromkeys(names):
            if names.count(name) > 1:
                self.problems.add(at, f"{name} is there twice", "each name once")
        return tuple(found)


def nested_kind(annotation: Any) -> str | None:
    """Return the kind of component in a field, also in a field of type tuple."""
    if get_origin(annotation) is tuple:
        annotation = get_args(annotation)[0]
        annotation = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
    return next((kind for cls, kind in NESTED.items() if cls is annotation), None)


def as_node(item: Any) -> Any:
    """Return {name: word} for a bare word, and anything else as it is."""
    return {"name": item} if isinstance(item, str) else item


def as_list(given: Any) -> Any:
    """Return a name or a node as a list of one, and anything else as it is.

    Examples are `margin` and `{name: margin, value: 2}`.
    """
    return [given] if isinstance(given, str | dict) else given
