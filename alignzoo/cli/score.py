"""`alignzoo score`: our numbers, for anyone to check against a forward of their own."""

from __future__ import annotations

from pathlib import Path

import click

from alignzoo.cli.arguments import recipe_arguments
from alignzoo.core.distributed import launch


@click.command(name="score", short_help="Write every row's log-probs under policy and reference.")
@recipe_arguments
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), required=True, help="A .jsonl file.")
@click.option("--split", type=click.Choice(["held_out", "train", "all"]), default="all", show_default=True)
def command(recipe: str, overrides: tuple[str, ...], overlays: tuple[str, ...], output: Path, split: str) -> None:
    """Write one JSON line a row: token ids and counts, and for chosen and rejected the summed and per-token log-probs
    (natural logarithms) under the trained policy and under the reference it started from.

    The recipe is run first if it was not.
    """
    from alignzoo.core.console import Screen
    from alignzoo.core.distributed.process_group import together
    from alignzoo.recipe.load import load_recipe
    from alignzoo.training.row_scores import write_scores

    with together():  # of several processes one tells a mistake
        resolved = load_recipe(recipe, overrides, overlays)
    rows = write_scores(resolved, output, split, Screen())
    if launch.rank() == 0:
        click.echo(f"{rows:,} rows in {output}")
