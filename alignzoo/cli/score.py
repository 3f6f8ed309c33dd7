"""`alignzoo score`: write log-probs per row, to compare with those of other software."""

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
    """Write one JSON line per row, and train RECIPE first where its run is not finished.

    RECIPE is a recipe, a run folder, or its name in the folder of runs.

    A line has token ids and counts and, for chosen and rejected, summed and per-token log-probs (natural logarithm)
    under the trained policy and the reference that it started from.
    """
    from alignzoo.core.console import Screen
    from alignzoo.core.distributed.process_group import together
    from alignzoo.core.files import check_output
    from alignzoo.training.row_scores import write_scores
    from alignzoo.training.runs import load_recipe_or_run

    with together():  # one process reports an error
        resolved = load_recipe_or_run(recipe, overrides, overlays)
        if launch.rank() == 0:
            check_output(output)
    rows = write_scores(resolved, output, split, Screen())
    if launch.rank() == 0:
        click.echo(f"{rows:,} rows in {output}")
