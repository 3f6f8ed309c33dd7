"""`alignzoo report`: draw reports again from run folders."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(name="report")
@click.argument("folders", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path))
@click.option("--open", "show", is_flag=True, help="Open the report in a browser.")
def command(folders: tuple[Path, ...], show: bool) -> None:
    """Draw report.html of each RUN from its files, finished or not.

    RUN is a run folder, its name in the folder of runs, or a recipe.
    """
    from alignzoo.report.run_page import write_report
    from alignzoo.training.runs import find_run

    for folder in map(find_run, folders):
        path = write_report(folder)
        click.echo(path)
        if show:
            click.launch(str(path))
