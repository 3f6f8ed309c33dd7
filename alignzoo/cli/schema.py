"""`alignzoo schema`: the JSON Schema of recipes, for editors."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command(name="schema")
@click.option("--partial", is_flag=True, help="The schema of a file for --with, in which nothing is required.")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="A file; default: stdout.")
def command(partial: bool, output: Path | None) -> None:
    """Print the JSON Schema of recipes: keys, types, bounds, defaults, descriptions and names.

    It has the components that are installed here. An editor with a YAML language server completes and checks a file
    whose first line is

    # yaml-language-server: $schema=recipe.schema.json
    """
    from alignzoo.core.files import as_output, check_output, write_page
    from alignzoo.recipe.json_schema import recipe_schema
    from alignzoo.registry.lookup import registry

    text = json.dumps(recipe_schema(registry(), partial), indent=1, ensure_ascii=False)
    if output is None:
        click.echo(text)
        return
    check_output(output)
    with as_output(output):
        write_page(output, f"{text}\n")
