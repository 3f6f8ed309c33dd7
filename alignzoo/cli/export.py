"""`alignzoo export`: write a run's policy, or its critic, as a Hugging Face folder."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(name="export", short_help="Write a run's policy as a Hugging Face folder.")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--to",
    type=click.Path(path_type=Path),
    help="Folder to write; default: `export` or `export-critic` in the run folder.",
)
@click.option("--critic", is_flag=True, help="Write the critic, a token classifier whose logits are the values.")
@click.option("--merge", is_flag=True, help="Merge trained adapters into full weights.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    help="Dtype of full weights; default: as the weights that training started from.",
)
@click.option("--max-shard-size", "shard", default="5GB", show_default=True, help="Maximum size of a file.")
@click.option("--force", is_flag=True, help="Replace an exported model.")
def command(
    run: Path, to: Path | None, critic: bool, merge: bool, dtype: str | None, shard: str, force: bool
) -> None:  # fmt: skip
    """Write the policy or the critic of the finished RUN, with a tokenizer and a card.

    RUN is a run folder, its name in the folder of runs, or a recipe.

    Full weights load with transformers' from_pretrained, an adapter with peft's.
    """
    import re

    if not re.fullmatch(r"\d+(\.\d+)?\s*[KMG]i?B", shard, re.IGNORECASE):
        raise click.BadParameter("expected a size such as 5GB or 500MB", param_hint="--max-shard-size")
    from alignzoo.core.console import Screen
    from alignzoo.training.export import export_run
    from alignzoo.training.runs import find_run

    click.echo(export_run(find_run(run), to, merge, dtype, shard, force, Screen(), critic))
