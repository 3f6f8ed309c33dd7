"""Base class of components, which a recipe names: their name, recipe form and summary."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

NAME = re.compile(r"[a-z][a-z0-9_]*")
"""Valid names of components."""
Spelling = Callable[[type[Any]], str]
"""From a class to its name in a recipe, which is `package/name` where several packages offer the same name."""


class NoEffect:
    """Mark of a field that changes speed, memory, or how something is reached, and no result.

    `Annotated[int, NoEffect]`: with another value it is the same run, and the same judge.
    """


class Strict(BaseModel):
    """Fields validated strictly: no unknown key, no later change, only finite numbers.

    A field with an alias is also set by its own name.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True)

    def fields_without_effect(self) -> dict[str, Any]:
        """Return the fields marked NoEffect, at any depth, in the form of pydantic's `exclude`."""
        found: dict[str, Any] = {}
        for name, field in type(self).model_fields.items():
            if NoEffect in field.metadata:
                found[name] = True
            elif within := _without_effect(getattr(self, name)):
                found[name] = within
        return found


def _without_effect(value: Any) -> dict[Any, Any]:
    """Return the marked fields of a model, of a tuple by place, and of a mapping by key."""
    if isinstance(value, Strict):
        return value.fields_without_effect()
    items = enumerate(value) if isinstance(value, tuple) else value.items() if isinstance(value, dict) else ()
    return {key: within for key, item in items if (within := _without_effect(item))}


class Component(Strict):
    """A class that a recipe names and configures: `{name: ..., its fields}`.

    Hyper-parameters are pydantic fields with bounds and descriptions. The first line of the docstring is the summary
    that `alignzoo list` prints.
    """

    name: ClassVar[str]
    """The name in a recipe: lower case letters, digits and underscores."""

    def to_recipe(self, spelling: Callable[[type[Any]], str] | None = None) -> Any:
        """Return the component as a recipe writes it, defaults included.

        Args:
            spelling: maps a class to its name in the recipe; by default that is the class's `name`.
        """
        return {"name": (spelling or plain_name)(type(self)), **self.model_dump(mode="json", by_alias=True)}


def plain_name(cls: type[Any]) -> str:
    """Return the name of a component without its package."""
    return str(cls.name)


def summary(cls: type[Any]) -> str:
    """Return the first line of a class's own docstring, or "" if it has none."""
    return next(iter((cls.__dict__.get("__doc__") or "").strip().splitlines()), "")
