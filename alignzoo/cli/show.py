"""`alignzoo show`: print the resolved recipe."""

from __future__ import annotations

import json
from collections.abc import Iterable

import click

from alignzoo.cli.arguments import recipe_arguments
from alignzoo.core.dotted import dotted_items


@click.command(name="show")
@recipe_arguments
@click.option("--origins", is_flag=True, help="Print the file and line of each value.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(recipe: str, overrides: tuple[str, ...], overlays: tuple[str, ...], origins: bool, as_json: bool) -> None:
    """Print RECIPE with extended recipes, overlays, overrides and defaults merged in."""
    from alignzoo.recipe.load import load_recipe

    resolved = load_recipe(recipe, overrides, overlays)
    if as_json:
        found = {key: str(origin) for key, origin in resolved.origins.items()}
        click.echo(json.dumps({"recipe": resolved.plain, "origins": found} if origins else resolved.plain, indent=2))
    elif origins:
        known = resolved.origins
        rows = [
            (f"{key}: {json.dumps(value)}", str(known.get(key, "default")))
            for key, value in dotted_items(resolved.plain, _children)
        ]
        width = min(72, max(len(text) for text, _ in rows))
        for text, origin in rows:
            click.echo(f"{text:<{width}}  # {origin}")
    else:
        click.echo(resolved.to_yaml(), nl=False)


def _children(value: object) -> Iterable[tuple[str, object]] | None:
    """The items below a mapping, or a list of mappings; an empty mapping is a leaf."""
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return [(str(i), item) for i, item in enumerate(value)]
    return value.items() if isinstance(value, dict) and value else None
