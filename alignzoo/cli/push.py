"""`alignzoo push`: send a run's policy to the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

import click

from alignzoo.cli.arguments import export_options


@click.command(name="push", short_help="Send a run's policy to the Hugging Face hub, with a model card.")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("repo", metavar="USER/NAME")
@click.option(
    "--private", is_flag=True, help="Create the repository as a private one; nothing is sent to a public one."
)
@click.option("--revision", metavar="BRANCH", help="Branch, created where there is none; default: main.")
@export_options
@click.option("--license", metavar="ID", help="License for the card, such as apache-2.0; default: the base model's.")
@click.option("--dry-run", is_flag=True, help="Print the files with their sizes and the card, and send nothing.")
def command(
    run: Path, repo: str, private: bool, revision: str | None, merge: bool, dtype: str | None, shard: str,
    license: str | None, dry_run: bool,
) -> None:  # fmt: skip
    """Send what `export` writes of the finished RUN to the repository USER/NAME.

    It is one commit. RUN is a run folder, its name in the folder of runs, or a recipe. The token is that of `hf auth
    login`, or HF_TOKEN. HF_ENDPOINT names another hub. The repository is created where there is none. Weights of an
    earlier push are removed from the branch; other files stay.
    """
    from alignzoo.core.console import Screen
    from alignzoo.core.redaction import printable
    from alignzoo.training.push import PushOptions, push_run
    from alignzoo.training.runs import find_run

    options = PushOptions(private, revision, merge, dtype, shard, license or "")
    sent = push_run(find_run(run), repo, options, Screen(), dry_run)
    if sent.url:
        click.echo(sent.url)
        return
    width = max(map(len, sent.files))
    for name, size in sent.files.items():
        click.echo(f"{printable(name):<{width}}  {size:>14,} bytes")
    click.echo(f"\n{sent.card}", nl=False)
