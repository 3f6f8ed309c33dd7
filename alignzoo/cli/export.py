"""`alignzoo export`: a run's policy as a folder for others."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(name="export", short_help="Write a run's policy as a Hugging Face folder.")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--to", type=click.Path(path_type=Path), help="The folder to write; by default `export` in the run's.")
@click.option("--merge", is_flag=True, help="Whole weights, where the run has trained adapters.")
@click.option(
    "--dtype", type=click.Choice(["float32", "bfloat16", "float16"]), help="Of whole weights; else as trained."
)
@click.option("--max-shard-size", "shard", default="5GB", show_default=True, help="Of a file, as 500MB.")
@click.option("--force", is_flag=True, help="Replace what is there.")
def command(run: Path, to: Path | None, merge: bool, dtype: str | None, shard: str, force: bool) -> None:
    """Write the policy of the finished run in the folder RUN, with its tokenizer and a model card.

    Whole weights load with transformers' from_pretrained, an adapter with peft's.
    """
    import re

    if not re.fullmatch(r"\d+(\.\d+)?\s*[KMG]i?B", shard, re.IGNORECASE):
        raise click.BadParameter("expected a size, as 5GB or 500MB", param_hint="--max-shard-size")
    from alignzoo.core.console import Screen
    from alignzoo.training.export import export_run

    click.echo(export_run(run, to, merge, dtype, shard, force, Screen()))
