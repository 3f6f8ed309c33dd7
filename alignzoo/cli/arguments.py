"""Arguments of the commands on a recipe: `RECIPE [key=value ...] --with OVERLAY ...`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click


def recipe_arguments(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the arguments `recipe`, `overrides` and `overlays` to a command."""
    command = click.option(
        "--with",
        "overlays",
        multiple=True,
        metavar="OVERLAY",
        help="A recipe to merge on top; repeatable.",
    )(command)
    command = click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")(command)
    return click.argument("recipe")(command)
