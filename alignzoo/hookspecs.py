"""Every extension point, one page.

All hooks have one shape: no arguments, return a list of classes. A class carries its `name`, pydantic fields with
descriptions, and a docstring; listing, `show`, recipe errors and the run folder's provenance all read these.

A plugin is a distribution with an entry point in the group `alignzoo` that names a module (or object) with functions
marked `@alignzoo.hookimpl`. The built-ins register through the same hooks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from alignzoo.composition import Modifier
    from alignzoo.data.source import DataSource
    from alignzoo.objective import Objective

PROJECT = "alignzoo"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def register_objectives() -> list[type[Objective]]:  # type: ignore[empty-body]
    """A loss on log-probabilities, and what it needs to be given."""


@hookspec
def register_modifiers() -> list[type[Modifier]]:  # type: ignore[empty-body]
    """What changes any objective: its log-ratios, its weights, its loss."""


@hookspec
def register_data_sources() -> list[type[DataSource]]:  # type: ignore[empty-body]
    """Where preference rows come from: pydantic fields -> an iterator of rows."""


KINDS: dict[str, tuple[str, str]] = {
    "objective": ("register_objectives", "alignzoo.objective:Objective"),
    "modifier": ("register_modifiers", "alignzoo.composition:Modifier"),
    "data source": ("register_data_sources", "alignzoo.data.source:DataSource"),
}
"""kind -> (its hook, the class that everything it returns must derive from)."""
