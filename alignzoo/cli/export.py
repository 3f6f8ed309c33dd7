"""`alignzoo export`: write a run's policy, or its critic, as a Hugging Face folder."""

from __future__ import annotations

from pathlib import Path

import click

from alignzoo.cli.arguments import export_options


@click.command(name="export", short_help="Write a run's policy as a Hugging Face folder.")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--to",
    type=click.Path(path_type=Path),
    help="Folder to write; default: `export` or `export-critic` in the run folder.",
)
@click.option("--critic", is_flag=True, help="Write the critic, a token classifier whose logits are the values.")
@export_options
@click.option("--force", is_flag=True, help="Replace an exported model.")
def command(
    run: Path, to: Path | None, critic: bool, merge: bool, dtype: str | None, shard: str, force: bool
) -> None:  # fmt: skip
    """Write the policy or the critic of the finished RUN, with a tokenizer and a card.

    RUN is a run folder, its name in the folder of runs, or a recipe.

    Full weights load with transformers' from_pretrained, an adapter with peft's.
    """
    from alignzoo.core.console import Screen
    from alignzoo.training.export import export_run
    from alignzoo.training.runs import find_run

    click.echo(export_run(find_run(run), to, merge, dtype, shard, force, Screen(), critic))
