"""Former names of the plugin API, for errors that name the present one."""

from __future__ import annotations

import re
from typing import Any

from pydantic.errors import PydanticUserError

_SCORED = {"detached": "stop_gradient", "random": "needs_uniform"}
RENAMED = {
    "Objective": _SCORED | {
        "reward": "implicit_reward", "sync": "reference_update", "includes": "already_applies", "node": "to_recipe",
        "pieces": "components",
    },
    "Modifier": _SCORED | {"see": "transform", "unfit": "incompatible_with"},
    "Metric": _SCORED,
    "DataSource": {"pieces": "components"},
    "Reporter": {"start": "on_start", "line": "on_log", "finish": "on_finish"},
}  # fmt: skip
"""Base class -> former name of an attribute -> present one."""
IMPORTS = {"content_of": "content_digest"}
"""Former name in `alignzoo.__all__` -> present one."""
_ATTRIBUTES = {old: new for names in RENAMED.values() for old, new in names.items()}


def former_name(cls: type, parent: type) -> str:
    """Return the problem of a plugin class that defines a former name, or "".

    The former name is in place of the present one.
    """
    for base in parent.__mro__:
        for old, new in RENAMED.get(base.__name__, {}).items():
            inherits_new: Any = getattr(cls, new, None) is getattr(parent, new, None)
            if hasattr(cls, old) and not hasattr(parent, old) and inherits_new:
                return f"{cls.__name__}.{old} was renamed; expected {cls.__name__}.{new}"
    return ""


def explain(error: BaseException) -> str:
    """Return the problem of a former name that fails while a plugin is imported, or "".

    A former class variable is such a name: pydantic takes it for a field without a type.
    """
    names: dict[str, str] = {}
    pattern = ""
    if isinstance(error, PydanticUserError) and error.code == "model-field-missing-annotation":
        names, pattern = _ATTRIBUTES, r"`(\w+) = "
    elif isinstance(error, ImportError) and error.name == "alignzoo":
        names, pattern = IMPORTS, r"import name '(\w+)'"
    found = re.search(pattern, str(error)) if names else None
    new = names.get(found[1]) if found else None
    return f"`{found[1]}` was renamed; expected `{new}`" if found and new else ""
